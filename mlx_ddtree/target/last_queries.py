"""The last queries of a prompt, which say what of it matters: kept by views of the caches it is processed with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from mlx_ddtree.kernels.tree_attention import KeysOrValues
from mlx_ddtree.target.attention import AttendingCache

LAST_QUERIES = 32
"""Enough to reach the text that asks, behind which a chat template puts tokens of its own."""


class LastQueriesView(AttendingCache):
    """A KVCache that keeps the last queries that attended to it.

    queries: (1, heads, at most 32, head_dim) after RoPE; None before the first.
    scale: what attention multiplies their scores by.
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

    def attend(
        self,
        queries: mx.array,
        keys: KeysOrValues,
        values: KeysOrValues,
        scale: float,
        mask: Any,
        sinks: mx.array | None,
    ) -> mx.array:
        self._keep(queries)
        self.scale = scale
        return super().attend(queries, keys, values, scale, mask, sinks)

    def _keep(self, queries: mx.array) -> None:
        last = queries[:, :, -LAST_QUERIES:]
        if self.queries is not None and last.shape[2] < LAST_QUERIES:
            last = mx.concatenate([self.queries, last], axis=2)[:, :, -LAST_QUERIES:]
        self.queries = last


def last_queries_views(cache: Sequence[Any]) -> list[Any]:
    """Views of the KVCaches, and the others as they are."""
    return [LastQueriesView(layer) if type(layer) is KVCache else layer for layer in cache]
