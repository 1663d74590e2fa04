"""How much room letters take, in a terminal and in a picture."""

from __future__ import annotations

from unicodedata import east_asian_width

SIZE, CHARACTER = 12, 7.3
"""Pixels of a picture's letters: how high, how wide; 12 pixels are 9 points."""
PAGE_WIDTH = 860
"""Pixels that GitHub and notebooks leave for a picture; wider ones are shrunk, and their letters with them."""


def cells(text: str) -> int:
    """Columns that `text` takes in a terminal, or in any font whose letters are equally wide."""
    return sum(2 if east_asian_width(c) in "WF" else 1 for c in text)
