"""mlx-lm's caches under a draft tree: what a verification adds waits for the commit, then stays or is gone.

Attention modules ask their cache for `offset`, `make_mask` and `update_and_fetch`.  A view answers them
for the rows of a tree, on top of the cache that it leaves as if the accepted tokens had been decoded one
by one.  One view per kind of cache:

AppendView  KVCache, QuantizedKVCache: rows go behind the context; the commit moves the path's to the front.
RingView    RotatingKVCache: rows wait in the view, because a ring that has turned cannot be turned back.
DeltaView   ArraysCache of gated delta layers (target/gated_delta.py): the rows' updates wait in the view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import ArraysCache, KVCache, QuantizedKVCache, RotatingKVCache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.gated_delta import TreeDelta, commit_delta
from mlx_ddtree.target.rows import RowsMask, TreeAttention, TreeRows
from mlx_ddtree.tree import DraftTree

Mark = list[tuple[Any, ...]]
"""Where each layer's cache stood; see `mark`."""


class AppendView:
    """Rows behind the context of a cache that keeps everything."""

    def __init__(self, base: KVCache | QuantizedKVCache, rows: TreeRows) -> None:
        self.base, self.rows = base, rows
        if isinstance(base, QuantizedKVCache):  # mlx-lm's attention looks for these
            self.bits, self.group_size = base.bits, base.group_size

    @property
    def offset(self) -> int | mx.array:
        return self.rows.offset

    def make_mask(
        self, n: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | RowsMask | str:
        if return_array:
            return self.rows.mask(self.rows.start, window_size)
        if self.rows.is_chain and window_size is None and self.rows.attention is None:
            return "causal"
        return self.rows.attention_mask(self.rows.start, window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        return self.base.update_and_fetch(keys, values)

    def commit(self, path: Sequence[int]) -> None:
        base, start, stop = self.base, self.rows.start, self.rows.start + len(path)
        if list(path) != list(range(len(path))):  # else the path's rows are the first ones already
            moved = mx.array(list(path), mx.int32) + start

            def gather(x: mx.array) -> mx.array:
                x[..., start:stop, :] = mx.take(x, moved, axis=2)
                return x

            base.keys, base.values = tree_map(gather, (base.keys, base.values))
        base.offset = stop


class RingView:
    """Rows beside a cache of limited size: the committed part in its order in time, then the rows."""

    def __init__(self, base: RotatingKVCache, rows: TreeRows) -> None:
        self.base, self.rows = base, rows
        self.waiting: tuple[mx.array, mx.array] | None = None
        self._kept = min(base.offset, 0 if base.keys is None else base.keys.shape[2])

    @property
    def offset(self) -> int | mx.array:
        return self.rows.offset

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array | RowsMask:
        base, make = self.base, self.rows.mask if return_array else self.rows.attention_mask
        return make(self._kept, min(window_size or base.max_size, base.max_size), base.keep)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.waiting = keys, values
        base = self.base
        if base.keys is None:
            return keys, values
        ordered = (base._temporal_order(x) for x in (base.keys, base.values))
        whole = tuple(mx.concatenate([o, x], axis=2) for o, x in zip(ordered, self.waiting, strict=True))
        return whole[0], whole[1]

    def commit(self, path: Sequence[int]) -> None:
        assert self.waiting is not None
        rows = mx.array(list(path), mx.int32)
        keys, values = (mx.take(x, rows, axis=2) for x in self.waiting)
        self.base.update_and_fetch(keys, values)


class DeltaView:
    """Rows beside the convolution window and the state of a gated delta layer.

    waiting: (rows (1, N, C) that went into the convolution, what the recurrence computed).
    """

    def __init__(self, base: ArraysCache, rows: TreeRows) -> None:
        self.base, self.rows = base, rows
        self.waiting: tuple[mx.array, TreeDelta] | None = None

    def make_mask(self, n: int) -> None:
        return None

    def commit(self, path: Sequence[int]) -> None:
        assert self.waiting is not None
        conv_rows, delta = self.waiting
        nodes = mx.array(list(path), mx.int32)
        window = self.base[0]
        recent = mx.concatenate([window, mx.take(conv_rows, nodes, axis=1)], axis=1)
        self.base[0] = mx.contiguous(recent[:, -window.shape[1] :])
        self.base[1] = commit_delta(delta, nodes).astype(self.base[1].dtype)


View = AppendView | RingView | DeltaView
_VIEWS: dict[type, type[Any]] = {
    KVCache: AppendView,
    QuantizedKVCache: AppendView,
    RotatingKVCache: RingView,
    ArraysCache: DeltaView,
}


class Pending:
    """The rows of one verification.  Until `commit` the caches stand where they stood, or can be rewound there."""

    def __init__(self, views: Sequence[View] = ()) -> None:
        self.views = views

    def commit(self, path: Sequence[int]) -> None:
        """Keep the rows of `path`, node indices with the root first, in path order."""
        for view in self.views:
            view.commit(path)


def check_cache(cache: Sequence[object]) -> None:
    """Raise UnsupportedModelError unless every layer's cache can hold a tree."""
    for layer_cache in cache:
        if type(layer_cache) not in _VIEWS:
            raise UnsupportedModelError(
                f"{type(layer_cache).__name__} cannot hold a draft tree; use method='ar' with this cache"
            )


def tree_views(
    cache: Sequence[Any], tree: DraftTree, start: int, rows: int, attention: TreeAttention | None = None
) -> list[View]:
    """Per-layer views for verifying `tree`, padded to `rows` rows, after `start` cached tokens.

    attention: in place of mlx-lm's, where the model's attention asks for it (target/attention.py).
    """
    shared = TreeRows(tree, start, rows, attention)
    return [_VIEWS[type(layer_cache)](layer_cache, shared) for layer_cache in cache]


def mark(cache: Sequence[Any]) -> Mark:
    """Where every layer's cache stands, for `rewind`.  Holds references, copies nothing by itself.

    What stands before a KVCache's offset never changes, so the offset says all.
    """
    return [_standing(layer_cache) for layer_cache in cache]


def rewind(cache: Sequence[Any], marked: Mark) -> None:
    """Undo everything since `mark`."""
    for layer_cache, standing in zip(cache, marked, strict=True):
        if isinstance(layer_cache, ArraysCache):
            layer_cache.cache = list(standing)
        elif isinstance(layer_cache, RotatingKVCache):
            keys, values, layer_cache.offset, layer_cache._idx = standing
            layer_cache.keys, layer_cache.values = _alias(keys), _alias(values)  # it may be rewound again
        else:
            layer_cache.offset = standing[0]


def _standing(layer_cache: Any) -> tuple[Any, ...]:
    if isinstance(layer_cache, ArraysCache):
        return tuple(layer_cache.cache)
    if isinstance(layer_cache, RotatingKVCache):
        return _alias(layer_cache.keys), _alias(layer_cache.values), layer_cache.offset, layer_cache._idx
    return (layer_cache.offset,)


def _alias(x: mx.array | None) -> mx.array | None:
    """Another array of the same content, which stays when `x` is assigned to in place."""
    return None if x is None else mx.stop_gradient(x)
