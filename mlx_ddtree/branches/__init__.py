"""Several continuations of one prompt: their rows in one cache, their common draft, their common rounds."""
