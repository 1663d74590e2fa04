"""Where caches stand, so that a round can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, QuantizedKVCache, RotatingKVCache

Mark = list[tuple[Any, ...]]
"""Where each layer's cache stood; see `mark`."""


def mark(cache: Sequence[Any]) -> Mark:
    """Where every layer's cache stands, for `rewind`.  Holds references, copies nothing by itself.

    What stands before a KVCache's offset never changes, so the offset says all.
    """
    return [_standing(layer_cache) for layer_cache in cache]


def mark_with_arrays(cache: Sequence[Any]) -> Mark:
    """As `mark`, and `rewind` also takes back what was added and never evaluated.

    Drop it before what was added is evaluated: as long as two arrays share memory, MLX copies what it adds to.
    """
    marked = []
    for layer_cache in cache:
        if isinstance(layer_cache, CacheList):
            marked.append(tuple(mark_with_arrays(layer_cache.caches)))
            continue
        standing = _standing(layer_cache)
        if isinstance(layer_cache, KVCache | QuantizedKVCache):
            standing = (*standing, tree_map(alias, layer_cache.keys), tree_map(alias, layer_cache.values))
        marked.append(standing)
    return marked


def rewind(cache: Sequence[Any], marked: Mark) -> None:
    """Undo everything since `mark`; the mark stays good for another time."""
    for layer_cache, standing in zip(cache, marked, strict=True):
        if isinstance(layer_cache, CacheList):
            rewind(layer_cache.caches, list(standing))
        elif isinstance(layer_cache, ArraysCache):
            layer_cache.cache = list(standing)
        elif isinstance(layer_cache, RotatingKVCache):
            keys, values, layer_cache.offset, layer_cache._idx = standing
            layer_cache.keys = alias(keys)
            layer_cache.values = alias(values)
        else:
            layer_cache.offset = standing[0]
            if len(standing) > 1:
                layer_cache.keys, layer_cache.values = standing[1:]


def fit_mark(cache: Sequence[Any], marked: Mark) -> None:
    """Let a mark that is to be kept hold no more than the caches would go on from; marked: of `cache` as it stands.

    A ring that has read a long chunk has all of that chunk's rows; its next update leaves the last `max_size` of them.
    """
    fitted: list[mx.array] = []
    for place, layer_cache in enumerate(cache):
        if isinstance(layer_cache, CacheList):
            inner = list(marked[place])
            fit_mark(layer_cache.caches, inner)
            marked[place] = tuple(inner)
        elif isinstance(layer_cache, RotatingKVCache):
            keys, values, offset, end = marked[place]
            excess = 0 if keys is None or end != keys.shape[2] else end - layer_cache.max_size
            if excess > 0:
                keys, values = layer_cache._trim(excess, keys), layer_cache._trim(excess, values)
                marked[place] = keys, values, offset, layer_cache.max_size
                fitted += [keys, values]
    mx.eval(fitted)


def cut_by_offset(cache: Sequence[Any]) -> bool:
    """Whether caches of these kinds hold rows that stand for themselves, whatever follows: their offset cuts them."""
    for layer_cache in cache:
        parts = layer_cache.caches if isinstance(layer_cache, CacheList) else [layer_cache]
        if not all(isinstance(part, KVCache | QuantizedKVCache) for part in parts):
            return False
    return True


def mark_bytes(marked: Mark) -> int:
    """Bytes of what a mark holds: states, convolutions' windows and rings; 0 where an offset cuts the caches."""
    flat: list[tuple[str, Any]] = tree_flatten(list(marked))  # type: ignore[assignment]
    return sum(x.nbytes for _, x in flat if isinstance(x, mx.array))


def _standing(layer_cache: Any) -> tuple[Any, ...]:
    if isinstance(layer_cache, CacheList):
        return tuple(mark(layer_cache.caches))
    if isinstance(layer_cache, ArraysCache):
        return tuple(layer_cache.cache)
    if isinstance(layer_cache, RotatingKVCache):
        return alias(layer_cache.keys), alias(layer_cache.values), layer_cache.offset, layer_cache._idx
    return (layer_cache.offset,)


def alias(x: mx.array | None) -> mx.array | None:
    """Another array of the same content, which stays when `x` is assigned to in place."""
    return None if x is None else mx.stop_gradient(x)
