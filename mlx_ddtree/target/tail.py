"""The last queries of a prompt, which say what of it matters: seen by views of the caches while it is processed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

TAIL_ROWS = 32
"""Enough to reach the text that asks, behind which a chat template puts tokens of its own."""


class TailView:
    """A KVCache that keeps the last rows of the queries that attended to it (target/attention.py calls `see`).

    queries: (1, heads, at most 32, head_dim) after RoPE; scale: what attention multiplies them by.
    """

    def __init__(self, base: KVCache) -> None:
        self.base = base
        self.queries: mx.array | None = None
        self.scale = 1.0

    @property
    def offset(self) -> int:
        return int(self.base.offset)

    def make_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.base.make_mask(*args, **kwargs)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        return self.base.update_and_fetch(keys, values)

    def see(self, queries: mx.array, scale: float) -> None:
        rows = queries[:, :, -TAIL_ROWS:]
        if self.queries is not None and rows.shape[2] < TAIL_ROWS:
            rows = mx.concatenate([self.queries, rows], axis=2)[:, :, -TAIL_ROWS:]
        self.queries, self.scale = rows, scale


def tail_views(cache: Sequence[Any]) -> list[Any]:
    """Views of the KVCaches, and the others as they are."""
    return [TailView(layer) if type(layer) is KVCache else layer for layer in cache]
