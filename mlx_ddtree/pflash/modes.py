"""The words of prefill compression's options; a command line is read with them, before anything computes."""

from __future__ import annotations

MESSAGES = "messages"
MODES = ("off", "auto", "always", MESSAGES)
POSITIONS = ("original", "compact")
THRESHOLD = 32_000
"""Tokens of a prompt above which 'auto' compresses."""
