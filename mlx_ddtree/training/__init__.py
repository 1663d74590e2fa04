"""Train a DFlash drafter for a target: its own answers as data, random anchors, one forward for all blocks."""
