"""One target on several machines: rank 0 runs the program, the others do to their shard what it does to its own."""
