"""One round of decoding, a verb a file, and the loop over rounds."""
