"""Which keys and values of a prompt stay in the cache (approximate, off by default).

Every KV head of every layer keeps the rows that the prompt's last queries attend to most: softmax of q . k over the
rows, the maximum over the head's query heads, the mean over the queries, averaged over neighbours.  The first and the
last rows stay.  Keys are stored after RoPE, so what stays keeps its position; all heads keep the same number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, KVCache

from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.target import PlainTarget, Target
from mlx_ddtree.target.last_queries import LastQueriesView

SINKS, WINDOW = 4, 64
"""First and last rows that every head keeps."""
POOL = 13
"""Neighbours, the row among them, over which importance is averaged."""


def check_filter(target: Target, cache: Sequence[Any], keep_ratio: float) -> None:
    """Raises OptionError for a ratio out of range, UnsupportedModelError for caches that cannot be filtered."""
    if not 0 < keep_ratio <= 1:
        raise OptionError(f"KV keep ratio {keep_ratio} is not above 0 and at most 1")
    instead = "use prefill compression instead (--prefill-compression), which drops tokens before they are cached"
    if isinstance(target, PlainTarget):
        raise UnsupportedModelError(f"the caches of model type {target.model_type!r} cannot be filtered; {instead}")
    if any(hasattr(module, "kv_lora_rank") for layer in target.layers for module in layer.modules()):
        raise UnsupportedModelError(f"caches of latent attention (MLA) have no keys to filter; {instead}")
    for layer_cache in cache:
        if type(layer_cache) not in (KVCache, ArraysCache):
            raise UnsupportedModelError(f"{type(layer_cache).__name__} cannot be filtered; {instead}")


def filter_cache(state: DecodeState, views: Sequence[Any], keep_ratio: float) -> tuple[int, int]:
    """Keep ceil(keep_ratio * n) of the n rows that came since the last filtering; all or nothing.

    views: what the prompt went through (target/last_queries.py).
    Returns the rows of the target's caches before and after; the same number if the ends alone would take them all.
    """
    first, length = state.coverage.filtered, state.length
    keep = math.ceil(keep_ratio * (length - first))
    sinks = SINKS if first == 0 else 0
    if keep <= sinks + WINDOW or keep == length - first:
        return length, length
    filtered = []
    for view in views:
        if isinstance(view, LastQueriesView) and view.queries is not None:
            keys, values = view.base.keys[..., :length, :], view.base.values[..., :length, :]
            rows = chosen_rows(importance(view.queries, keys, view.scale)[:, first:], keep, sinks) + first
            if first:
                before = mx.broadcast_to(mx.arange(first, dtype=rows.dtype), (len(rows), first))
                rows = mx.concatenate([before, rows], axis=1)
            keys, values = (mx.take_along_axis(x, rows[None, :, :, None], axis=2) for x in (keys, values))
            mx.eval(keys, values)
            filtered.append((view.base, keys, values))
    _replace(state, filtered, first + keep)
    mx.clear_cache()
    return length, state.length


def importance(queries: mx.array, keys: mx.array, scale: float) -> mx.array:
    """queries (1, Hq, T, D) of the last T of L rows, keys (1, H, L, D) -> (H, L) fp32 before pooling."""
    heads, tail, length = keys.shape[1], queries.shape[2], keys.shape[2]
    grouped = queries.astype(mx.float32).reshape(heads, -1, tail, queries.shape[-1]) * scale
    logits = grouped @ keys[0].astype(mx.float32).swapaxes(-1, -2)[:, None]
    seen = mx.arange(length)[None] <= mx.arange(length - tail, length)[:, None]
    paid = mx.softmax(mx.where(seen, logits, -mx.inf), axis=-1)
    return paid.max(axis=1).mean(axis=1)


def chosen_rows(scores: mx.array, keep: int, sinks: int) -> mx.array:
    """(H, n) scores -> (H, keep) int32 rows of each head, ascending: the first `sinks`, the last WINDOW, the best."""
    n = scores.shape[1]
    sums = mx.pad(mx.cumsum(scores, axis=1), [(0, 0), (1, 0)])
    places = mx.arange(n)
    low, high = mx.maximum(places - POOL // 2, 0), mx.minimum(places + POOL // 2 + 1, n)
    smooth = (sums[:, high] - sums[:, low]) / (high - low)
    forced = (places < sinks) | (places >= n - WINDOW)
    best = mx.argpartition(mx.where(forced, -mx.inf, -smooth), keep - 1, axis=1)[:, :keep]
    return mx.sort(best.astype(mx.int32), axis=1)


def _replace(state: DecodeState, filtered: Sequence[tuple[KVCache, mx.array, mx.array]], rows: int) -> None:
    """Put new keys and values, `rows` rows of each, into the caches, which stand for the same tokens and the same next
    position as before.  All of it happens or, interrupted, nothing."""
    before = [(cache, cache.keys, cache.values, cache.offset) for cache, _, _ in filtered]
    coverage, length = state.coverage, state.length
    standing = {"source": state.source, "rows": rows, "drafter_rows": state.drafted_length, "head": 0, "filtered": rows}
    try:
        for cache, keys, values in filtered:
            cache.keys, cache.values, cache.offset = keys, values, rows
        state.coverage, state.length = replace(coverage, gap=state.position - rows, **standing), rows
    except BaseException:
        for cache, *old in before:
            cache.keys, cache.values, cache.offset = old
        state.coverage, state.length = coverage, length
        raise
