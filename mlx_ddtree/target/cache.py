"""KV caches under a draft tree: append all nodes, then keep the accepted path or nothing.

mlx-lm's attention modules ask their cache for three things: `offset` (to rotate queries and
keys), `make_mask` (through the model) and `update_and_fetch`.  TreeKVCache answers them for the
rows of a tree, on top of the plain KVCache that it leaves as if the accepted tokens had been
decoded one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.tree import DraftTree


class TreeRows:
    """What all layers share during one verification of N tree rows (padding included).

    positions: (1, N) int32, context length + depth.
    """

    def __init__(self, tree: DraftTree, start: int, rows: int) -> None:
        depths = np.zeros(rows, np.int32)
        depths[: len(tree)] = tree.depths
        self.start, self.rows = start, rows
        self.positions = mx.array(depths[None] + start)
        tail = np.eye(rows, dtype=np.bool_)  # a padding row sees itself only, and nobody sees it
        tail[: len(tree), : len(tree)] = tree.ancestor_mask()
        self._depths, self._tail = depths, mx.array(tail)
        self._masks: dict[int | None, mx.array] = {}

    def mask(self, window: int | None = None) -> mx.array:
        """(N, start + N) bool: the whole context (or its last `window` positions), then ancestors."""
        if window not in self._masks:
            context = mx.ones((self.rows, self.start), mx.bool_)
            tail = self._tail
            if window is not None:
                depths = mx.array(self._depths)
                context = mx.arange(self.start)[None] > self.start + depths[:, None] - window
                tail = tail & (depths[None] > depths[:, None] - window)
            self._masks[window] = mx.concatenate([context, tail], axis=1)
        return self._masks[window]


class TreeKVCache:
    """One layer's view for one verification; the nodes' rows go behind the context in `base`."""

    def __init__(self, base: KVCache, rows: TreeRows) -> None:
        self.base, self.rows = base, rows

    @property
    def offset(self) -> mx.array:
        return self.rows.positions

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        return self.rows.mask(window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return self.base.update_and_fetch(keys, values)


def check_cache(cache: Sequence[object]) -> None:
    """Raise UnsupportedModelError unless every layer's cache can hold a tree."""
    for layer_cache in cache:
        if type(layer_cache) is not KVCache:
            raise UnsupportedModelError(
                f"{type(layer_cache).__name__} cannot hold a draft tree yet; use method='ar' with this cache, "
                "or a full-precision cache without a size limit"
            )


def tree_view(cache: Sequence[KVCache], tree: DraftTree, start: int, rows: int) -> list[TreeKVCache]:
    """Per-layer views for verifying `tree`, padded to `rows` rows, after `start` cached tokens."""
    shared = TreeRows(tree, start, rows)
    return [TreeKVCache(layer_cache, shared) for layer_cache in cache]


def keep_rows(cache: Sequence[KVCache], start: int, path: Sequence[int]) -> None:
    """Commit: of the rows appended behind `start`, keep those of `path`, in path order.

    A path that is a prefix (0, 1, 2, ...) needs no copy; an empty one rolls back.
    """
    moved = mx.array(list(path), mx.int32) + start if list(path) != list(range(len(path))) else None
    for layer_cache in cache:
        if moved is not None:
            stop = start + len(path)
            layer_cache.keys[..., start:stop, :] = mx.take(layer_cache.keys, moved, axis=2)
            layer_cache.values[..., start:stop, :] = mx.take(layer_cache.values, moved, axis=2)
        layer_cache.offset = start + len(path)
