"""The bars of a training run: drawn on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from tqdm import tqdm

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal: a log that can be read, and that shows within a minute that all is
well."""

CURSOR_UP = "\x1b[A"
"""What tqdm goes back with to where a second bar began."""


class Lines:
    """A text file for tqdm that turns what it draws into lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write a bar as a line; what only moves the cursor is left out."""
        line = text.replace(CURSOR_UP, "").strip("\r\n ")
        if line:
            self.stream.write(line + "\n")

    def flush(self) -> None:
        """Hand out what was written."""
        self.stream.flush()


def make_bar(enabled: bool, stream: TextIO | None = None, line_seconds: float = LINE_SECONDS, **options: Any) -> tqdm:
    """A bar on `stream`, standard error by default, that `update(0)` may refresh.

    options: tqdm's own, such as total, initial, desc and unit.
    """
    stream = stream or sys.stderr
    if stream.isatty():
        return tqdm(file=stream, miniters=0, disable=not enabled, **options)
    return tqdm(file=Lines(stream), miniters=0, mininterval=line_seconds, disable=not enabled, **options)
