"""mlx-lm's caches under a draft tree: what a verification adds waits for the commit, then stays or is gone.

Attention modules ask their cache for `offset`, `make_mask`, `update_and_fetch` and, here, `attend`.  A view answers
them for the rows of a tree, on top of the cache that it leaves as if the accepted tokens had been decoded one
by one.  One view per kind of cache:

AppendView  KVCache, QuantizedKVCache: rows go behind the context; the commit moves the path's to the front.
RingView    RotatingKVCache: rows wait in the view, because a ring that has turned cannot be turned back.
StateView   ArraysCache: states of recurrent layers, which the commit takes further (target/gated_delta.py, replay.py).
ListView    CacheList: several of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, QuantizedKVCache, RotatingKVCache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.gated_delta import REFERENCES, TreeDelta
from mlx_ddtree.kernels.gather_rows import GatherRows, gather_rows
from mlx_ddtree.target.attention import AttendingCache
from mlx_ddtree.target.layer_view import LayerView
from mlx_ddtree.target.ring_view import RingView
from mlx_ddtree.target.rows import Rows, RowsMask, TreeRows


class AppendView(LayerView, AttendingCache):
    """Rows behind the context of a cache that keeps everything.

    The commit takes the path's rows from what the layer brought, not out of the cache: MLX assigns to a slice in place
    only while nothing else reads the array, and would copy the whole context.

    waiting: keys and values (1, H, N, D) of the rows, once the layer has brought them.
    """

    def __init__(self, base: KVCache | QuantizedKVCache, rows: Rows, kernels: KernelSet = MLX) -> None:
        self.base = base
        self.rows = rows
        self.kernels = kernels
        self.waiting: tuple[mx.array, mx.array] | None = None
        if isinstance(base, QuantizedKVCache):  # mlx-lm's attention looks for these
            self.bits = base.bits
            self.group_size = base.group_size

    @property
    def offset(self) -> int:
        """Tokens before the rows; where each of them stands, the running forward knows (target/positions.py)."""
        return self.rows.start

    @property
    def gone(self) -> int:
        """Tokens of the context over which the cache's arrays close up."""
        return 0

    def make_mask(
        self, n: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | RowsMask | str:
        """As mlx-lm's caches have it, for the rows."""
        context = self.rows.start
        kernel = self.kernels.attention_behind(context)
        if return_array:
            return self.rows.mask(context, window_size)
        if self.rows.is_chain and window_size is None and kernel is None:
            return "causal"
        return self.rows.attention_mask(kernel, context, window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        """Put the rows behind the context; all keys and values."""
        self.waiting = keys, values
        return self.base.update_and_fetch(keys, values)

    def keys_and_values(self) -> Any:
        """All keys and values, the rows' among them: layers that share another one's ask for them."""
        return self.base.keys_and_values()

    @staticmethod
    def commit_all(views: Sequence[AppendView], path: Sequence[int], gather: GatherRows) -> None:
        start = views[0].rows.start
        in_place = next((i for i, row in enumerate(path) if i != row), len(path))
        if in_place < len(path):
            rows = gather([x for view in views for x in view.waiting or ()], path[in_place:])
            for view, keys, values in zip(views, rows[::2], rows[1::2], strict=True):
                _overwrite(view.base, start + in_place - view.gone, keys, values)
        for view in views:
            view.base.offset = start + len(path)


class StateView(LayerView):
    """Rows beside the states of a layer that carries some from token to token.

    waiting: what a gated delta layer has left (target/gated_delta.py): the rows (1, N, C) that went into its
        convolution, and what its recurrence computed.
    replays: the calls of other recurrent modules (target/replay.py), each to be run once more over the accepted path.
    """

    lengths = None
    """mlx-lm's layers ask: no sequence of a batch is shorter than the others."""

    def __init__(self, base: ArraysCache, rows: TreeRows, kernels: KernelSet = MLX) -> None:
        self.base = base
        self.rows = rows
        most = kernels.delta.max_rows
        self.kernels = REFERENCES if most is not None and rows.count > most else kernels.delta
        self.waiting: tuple[mx.array, TreeDelta] | None = None
        self.replays: list[Any] = []

    def make_mask(self, n: int) -> None:
        """No row of one sequence is padding that a recurrence would have to skip."""
        return None

    @staticmethod
    def commit_all(views: Sequence[StateView], path: Sequence[int], gather: GatherRows) -> None:
        for view in views:
            for replay in view.replays:
                replay.commit(view.base, path)
        deltas = [view for view in views if view.waiting is not None]
        if not deltas:
            return
        kernels = deltas[0].kernels
        nodes = mx.array(list(path), mx.int32)
        waiting = [view.waiting for view in deltas if view.waiting is not None]
        windows = kernels.commit_windows([view.base[0] for view in deltas], [rows for rows, _ in waiting], nodes)
        states = kernels.commit_states([delta for _, delta in waiting], nodes)
        for view, window, state in zip(deltas, windows, states, strict=True):
            view.base[0] = window
            view.base[1] = state


class ListView(LayerView):
    """A layer with several caches, a view of each."""

    def __init__(self, base: CacheList, rows: Rows, kernels: KernelSet = MLX) -> None:
        self.parts = views_of(base.caches, rows, kernels)

    def __getitem__(self, index: int) -> Any:
        return self.parts[index]

    @staticmethod
    def commit_all(views: Sequence[ListView], path: Sequence[int], gather: GatherRows) -> None:
        Pending([part for view in views for part in view.parts], gather).commit(path)


View = AppendView | RingView | StateView | ListView
_VIEWS: dict[type, type[Any]] = {
    KVCache: AppendView,
    QuantizedKVCache: AppendView,
    RotatingKVCache: RingView,
    ArraysCache: StateView,
    CacheList: ListView,
}


class Pending:
    """The rows of one verification.  Until `commit` the caches stand where they stood, or can be rewound there."""

    def __init__(self, views: Sequence[View] = (), gather: GatherRows = gather_rows) -> None:
        self.views = views
        self.gather = gather

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
        if isinstance(layer_cache, CacheList):
            check_cache(layer_cache.caches)
        elif _view_class(layer_cache) is None:
            raise UnsupportedModelError(
                f"{type(layer_cache).__name__} cannot hold a draft tree; use method='ar' with this cache"
            )


def views_of(cache: Sequence[Any], rows: Rows, kernels: KernelSet = MLX) -> list[View]:
    """A view of each layer's cache, through which `rows` go; kernels: what attention and commits may use."""
    views = []
    for layer_cache in cache:
        view = _view_class(layer_cache)
        if view is not None:
            views.append(view(layer_cache, rows, kernels))
    return views


def _view_class(layer_cache: object) -> type[Any] | None:
    return layer_cache.tree_view if isinstance(layer_cache, AttendingCache) else _VIEWS.get(type(layer_cache))


def waits_unevaluated(cache: Sequence[Any]) -> bool:
    """Whether a forward over these caches can be built and then be given up: whether `mark_with_arrays` knows them."""
    return all(type(layer_cache) in _VIEWS for layer_cache in cache)


def _overwrite(base: KVCache | QuantizedKVCache, first: int, keys: mx.array, values: mx.array) -> None:
    """Put keys and values (1, H, m, D) in the cache's rows from `first` on."""
    parts: tuple[tuple[Any, mx.array], ...] = ((base.keys, keys), (base.values, values))
    for stored, rows in parts:
        if isinstance(base, QuantizedKVCache):
            packed = mx.quantize(rows, group_size=base.group_size, bits=base.bits)
            for x, new in zip(stored, packed, strict=True):
                x[..., first : first + new.shape[2], :] = new
        else:
            stored[..., first : first + rows.shape[2], :] = rows
