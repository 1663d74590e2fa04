"""The drafter's context where a layer sees only the last tokens: no more than that is kept."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

BACK = 1024
"""Tokens by which a context can be set back and still be whole: an answer.  Behind that it is only shorter."""


class WindowCache:
    """Keys and values (1, H, n, D) of the last tokens of a context of `offset` tokens.

    Row i stands at position first + i.  What lies `keep` rows before an update is given up by the update, so that
    setting `offset` back by that update and BACK tokens more leaves a whole window.  Set back further, the window has
    fewer rows or none and fills up again: drafts get worse for a while, and nothing else depends on them.
    """

    step = KVCache.step

    def __init__(self, window: int) -> None:
        self.keep = window - 1 + BACK
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = self.first = 0

    @property
    def held(self) -> int:
        """Rows of the context that are there."""
        return max(0, self.offset - self.first)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append m rows; all rows that are there, the first at position `first`."""
        self.first = min(self.first, self.offset)  # after a rewind behind all that is kept
        start, end = self.held, self.held + keys.shape[2]
        if self.keys is None or end > self.keys.shape[2]:
            drop = max(0, start - self.keep)
            self.first, start, end = self.first + drop, start - drop, end - drop
            room = self.step * -(-end // self.step) + self.step
            self.keys, self.values = (
                _moved(old, new, drop, start, room) for old, new in ((self.keys, keys), (self.values, values))
            )
        assert self.keys is not None
        assert self.values is not None
        self.keys[..., start:end, :], self.values[..., start:end, :] = keys, values
        self.offset = self.first + end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def trim(self, n: int) -> int:
        """Take back the last n tokens, as mlx_lm's caches do."""
        self.offset -= n
        return n

    def whole(self) -> tuple[KVCache, int]:
        """The rows in a cache that keeps everything from now on, and the position of its first row."""
        cache, self.first = KVCache(), min(self.first, self.offset)
        if self.held:
            cache.keys, cache.values = self.keys_and_values()
            cache.offset = self.held
        return cache, self.first

    def keys_and_values(self) -> tuple[mx.array | None, mx.array | None]:
        """The context's rows that are there, the first at position `first`."""
        if self.keys is None or self.values is None:
            return None, None
        return self.keys[..., : self.held, :], self.values[..., : self.held, :]

    @property
    def state(self) -> list[Any]:
        """For mx.eval."""
        return [] if self.keys is None else [self.keys, self.values]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.state)


def _moved(old: mx.array | None, new: mx.array, drop: int, held: int, room: int) -> mx.array:
    """`room` rows, of which the first `held` are those of `old` behind the first `drop`."""
    empty = mx.zeros((*new.shape[:2], room - held, new.shape[3]), new.dtype)
    return empty if old is None or not held else mx.concatenate([old[..., drop : drop + held, :], empty], axis=2)
