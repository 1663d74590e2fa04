"""How much of a prompt is processed at a time, where no chunk is to take longer than so many seconds.

Between two chunks a hang-up is noticed, Ctrl-C ends the prompt and others may be served.  A chunk's seconds grow with
the context that it attends to, so what is known of it is kept by powers of two of that context.
"""

from __future__ import annotations

FIRST = 256
"""Tokens of a chunk while nothing is known."""
LEAST = 64
"""Tokens of the smallest chunk, and of those that teach: fewer cost about as much as one."""
WEIGHT = 0.5
"""Of the newest timing."""


class ChunkPace:
    """Seconds that a token of a prompt takes, by how many are before it."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def size(self, before: int, most: int, seconds: float | None) -> int:
        """Tokens of the next chunk behind `before` tokens.

        most: of them.  seconds: that it may take; None: any number.

        `most` halved as often as it takes, so that few sizes occur, and a prompt is mostly cut alike from call to call.
        """
        if seconds is None:
            return most
        known = [self._seconds[part] for part in sorted(self._seconds) if part <= _part(before)]
        each = known[-1] if known else min(self._seconds.values(), default=None)
        size = most
        while size // 2 >= LEAST and (size > FIRST if each is None else each * size > seconds):
            size //= 2
        return size

    def took(self, before: int, tokens: int, seconds: float) -> None:
        """A chunk of so many tokens behind `before` others took `seconds`."""
        if tokens < LEAST:
            return
        part = _part(before)
        old = self._seconds.get(part, seconds / tokens)
        self._seconds[part] = old + WEIGHT * (seconds / tokens - old)


def _part(before: int) -> int:
    """Contexts of which seconds are kept together: up to 2,048 tokens, 4,096, 8,192 and so on."""
    return max(before, 1).bit_length() if before > 2048 else 0
