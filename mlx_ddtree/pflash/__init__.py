"""Long contexts: prompts that keep what matters, and caches that are read in part.  Approximate, off by default."""
