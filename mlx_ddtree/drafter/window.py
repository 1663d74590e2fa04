"""The drafter's context where a layer sees only the last tokens: no more than that is kept."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

BACK = 1024
"""Tokens by which a context can be set back and still be whole: an answer.  Behind that it is only shorter."""


class WindowCache:
    """Keys and values (1, H, n, D) of the last tokens of a context of `offset` tokens.

    first: the position of the first token that is stored.
    keep: tokens before an update that the update leaves stored, so that setting `offset` back by that update and BACK
        tokens more leaves a whole window.

    Set back further, the window has fewer tokens or none and fills up again: drafts get worse for a while, and nothing
    else depends on them.
    """

    step = KVCache.step

    def __init__(self, window: int) -> None:
        self.keep = window - 1 + BACK
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0
        self.first = 0

    @property
    def stored(self) -> int:
        """Tokens of the context that are there."""
        return max(0, self.offset - self.first)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append m tokens' keys and values; those of all tokens that are there, the first at position `first`."""
        self.first = min(self.first, self.offset)  # after a rewind behind all that is kept
        start = self.stored
        end = start + keys.shape[2]
        # 1. Where the arrays are full, what lies more than `keep` tokens back goes, and room is made for more.
        if self.keys is None or end > self.keys.shape[2]:
            dropped = max(0, start - self.keep)
            self.first += dropped
            start -= dropped
            end -= dropped
            room = self.step * -(-end // self.step) + self.step
            self.keys = _moved(self.keys, keys, dropped, start, room)
            self.values = _moved(self.values, values, dropped, start, room)
        assert self.keys is not None
        assert self.values is not None
        # 2. The new ones follow what is stored.
        self.keys[..., start:end, :] = keys
        self.values[..., start:end, :] = values
        self.offset = self.first + end
        return self.keys[..., :end, :], self.values[..., :end, :]

    def trim(self, n: int) -> int:
        """Take back the last n tokens, as mlx_lm's caches do."""
        self.offset -= n
        return n

    def whole(self) -> tuple[KVCache, int]:
        """What is stored in a cache that keeps everything from now on, and the position of its first token."""
        cache = KVCache()
        self.first = min(self.first, self.offset)
        if self.stored:
            cache.keys, cache.values = self.keys_and_values()
            cache.offset = self.stored
        return cache, self.first

    def keys_and_values(self) -> tuple[mx.array | None, mx.array | None]:
        """What is stored, the first token at position `first`."""
        if self.keys is None or self.values is None:
            return None, None
        return self.keys[..., : self.stored, :], self.values[..., : self.stored, :]

    @property
    def state(self) -> list[Any]:
        """For mx.eval."""
        return [] if self.keys is None else [self.keys, self.values]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(x.nbytes for x in self.state)


def _moved(old: mx.array | None, new: mx.array, dropped: int, stored: int, room: int) -> mx.array:
    """An array for `room` tokens, of which the first `stored` are those of `old` behind the first `dropped`."""
    empty = mx.zeros((*new.shape[:2], room - stored, new.shape[3]), new.dtype)
    if old is None or not stored:
        return empty
    return mx.concatenate([old[..., dropped : dropped + stored, :], empty], axis=2)
