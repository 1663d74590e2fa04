"""Approximate systems for long prompts, all off by default: what a prompt keeps (PFlash) and what a cache reads."""
