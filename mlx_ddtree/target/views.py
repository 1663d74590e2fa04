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
from mlx_lm.models.cache import ArraysCache, KVCache, QuantizedKVCache, RotatingKVCache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.gated_delta import REFERENCES, TreeDelta
from mlx_ddtree.kernels.gather_rows import GatherRows, gather_rows
from mlx_ddtree.target.rows import RowsMask, TreeRows
from mlx_ddtree.tree import DraftTree

Mark = list[tuple[Any, ...]]
"""Where each layer's cache stood; see `mark`."""


class ReadsPart:
    """A cache, or a view of one, whose layer may read only a part of it (icecache/cache.py).

    tree_view: the view of such a cache.
    """

    tree_view: type[Any]

    def reads_part(self, queries: mx.array) -> bool:
        """Whether it does so for these queries."""
        raise NotImplementedError

    def attend(self, queries: mx.array, scale: float, sinks: mx.array | None) -> mx.array:
        """Attention of the rows that were added last: (1, Hq, N, D) -> (1, Hq, N, Dv)."""
        raise NotImplementedError


class _View:
    """What one layer's cache answers under a tree; `commit_all` for the views of one kind, which share their rows."""

    @property
    def room(self) -> int | None:
        """Nodes of a path, the root included, that one round may commit; None: all."""
        return None

    @property
    def keys(self) -> mx.array:
        """Nothing.  mlx-lm's pipelines tie what they send to the last cache's keys, so that evaluating caches sends it;
        a verification is evaluated as a whole."""
        return mx.zeros(0)

    @keys.setter
    def keys(self, tied: mx.array) -> None: ...

    @staticmethod
    def commit_all(views: Sequence[Any], path: Sequence[int], gather: GatherRows) -> None:
        raise NotImplementedError

    def commit(self, path: Sequence[int]) -> None:
        """Keep the rows of `path`, node indices with the root first, in path order."""
        self.commit_all([self], path, gather_rows)


class AppendView(_View):
    """Rows behind the context of a cache that keeps everything.

    The commit takes the path's rows from what the layer brought, not out of the cache: MLX assigns to a slice in place
    only while nothing else reads the array, and would copy the whole context.
    """

    def __init__(self, base: KVCache | QuantizedKVCache, rows: TreeRows) -> None:
        self.base, self.rows = base, rows
        self.waiting: tuple[mx.array, mx.array] | None = None
        if isinstance(base, QuantizedKVCache):  # mlx-lm's attention looks for these
            self.bits, self.group_size = base.bits, base.group_size

    @property
    def offset(self) -> int | mx.array:
        return self.rows.offset

    @property
    def gone(self) -> int:
        """Tokens of the context over which the cache's arrays close up."""
        return 0

    def make_mask(
        self, n: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | RowsMask | str:
        if return_array:
            return self.rows.mask(self.rows.start, window_size)
        if self.rows.is_chain and window_size is None and self.rows.kernels.attention is None:
            return "causal"
        return self.rows.attention_mask(self.rows.start, window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        self.waiting = keys, values
        return self.base.update_and_fetch(keys, values)

    @staticmethod
    def commit_all(views: Sequence[AppendView], path: Sequence[int], gather: GatherRows) -> None:
        start = views[0].rows.start
        stay = next((i for i, row in enumerate(path) if i != row), len(path))  # rows that are in place already
        if stay < len(path):
            rows = gather([x for view in views for x in view.waiting or ()], path[stay:])
            for view, keys, values in zip(views, rows[::2], rows[1::2], strict=True):
                _overwrite(view.base, start + stay - view.gone, keys, values)
        for view in views:
            view.base.offset = start + len(path)


class RingView(_View):
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

    @staticmethod
    def commit_all(views: Sequence[RingView], path: Sequence[int], gather: GatherRows) -> None:
        rows = gather([x for view in views for x in view.waiting or ()], path)
        for view, keys, values in zip(views, rows[::2], rows[1::2], strict=True):
            view.base.update_and_fetch(keys, values)


class DeltaView(_View):
    """Rows beside the convolution window and the state of a gated delta layer.

    waiting: (rows (1, N, C) that went into the convolution, what the recurrence computed).
    """

    def __init__(self, base: ArraysCache, rows: TreeRows) -> None:
        self.base, self.rows = base, rows
        most = rows.kernels.delta.max_rows
        self.kernels = REFERENCES if most is not None and rows.rows > most else rows.kernels.delta
        self.waiting: tuple[mx.array, TreeDelta] | None = None

    def make_mask(self, n: int) -> None:
        return None

    @staticmethod
    def commit_all(views: Sequence[DeltaView], path: Sequence[int], gather: GatherRows) -> None:
        nodes, kernels = mx.array(list(path), mx.int32), views[0].kernels
        waiting = [view.waiting for view in views if view.waiting is not None]
        windows = kernels.commit_windows([view.base[0] for view in views], [rows for rows, _ in waiting], nodes)
        states = kernels.commit_states([delta for _, delta in waiting], nodes)
        for view, window, state in zip(views, windows, states, strict=True):
            view.base[0], view.base[1] = window, state


View = AppendView | RingView | DeltaView
_VIEWS: dict[type, type[Any]] = {
    KVCache: AppendView,
    QuantizedKVCache: AppendView,
    RotatingKVCache: RingView,
    ArraysCache: DeltaView,
}


class Pending:
    """The rows of one verification.  Until `commit` the caches stand where they stood, or can be rewound there."""

    def __init__(self, views: Sequence[View] = (), gather: GatherRows = gather_rows) -> None:
        self.views, self.gather = views, gather

    def commit(self, path: Sequence[int]) -> None:
        """Keep the rows of `path`, node indices with the root first, in path order."""
        for kind in dict.fromkeys(type(view) for view in self.views):
            views: list[Any] = [view for view in self.views if type(view) is kind]
            kind.commit_all(views, path, self.gather)

    @property
    def room(self) -> int | None:
        """Nodes of a path, the root included, that may be committed; None: all."""
        return min((view.room for view in self.views if view.room is not None), default=None)


def check_cache(cache: Sequence[object]) -> None:
    """Raise UnsupportedModelError unless every layer's cache can hold a tree."""
    for layer_cache in cache:
        if _view_class(layer_cache) is None:
            raise UnsupportedModelError(
                f"{type(layer_cache).__name__} cannot hold a draft tree; use method='ar' with this cache"
            )


def tree_views(
    cache: Sequence[Any], tree: DraftTree, start: int, rows: int, kernels: KernelSet = MLX, gap: int = 0
) -> list[View]:
    """Per-layer views for verifying `tree`, padded to `rows` rows, after `start` cached tokens; see `TreeRows`."""
    shared = TreeRows(tree, start, rows, kernels, gap)
    views = [(_view_class(layer_cache), layer_cache) for layer_cache in cache]
    return [view(layer_cache, shared) for view, layer_cache in views if view is not None]


def _view_class(layer_cache: object) -> type[Any] | None:
    return layer_cache.tree_view if isinstance(layer_cache, ReadsPart) else _VIEWS.get(type(layer_cache))


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


def _overwrite(base: KVCache | QuantizedKVCache, first: int, keys: mx.array, values: mx.array) -> None:
    """Put keys and values (1, H, m, D) in the places from `first` on."""
    parts: tuple[tuple[Any, mx.array], ...] = ((base.keys, keys), (base.values, values))
    for kept, rows in parts:
        pairs = [(kept, rows)]
        if isinstance(base, QuantizedKVCache):
            pairs = list(zip(kept, mx.quantize(rows, group_size=base.group_size, bits=base.bits), strict=True))
        for x, new in pairs:
            x[..., first : first + new.shape[2], :] = new


def _alias(x: mx.array | None) -> mx.array | None:
    """Another array of the same content, which stays when `x` is assigned to in place."""
    return None if x is None else mx.stop_gradient(x)
