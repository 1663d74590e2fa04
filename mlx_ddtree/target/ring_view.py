"""A cache of limited size (mlx-lm's RotatingKVCache) under a draft tree."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
from mlx_lm.models.cache import RotatingKVCache

from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.gather_rows import GatherRows
from mlx_ddtree.target.attention import AttendingCache
from mlx_ddtree.target.layer_view import LayerView
from mlx_ddtree.target.rows import Rows, RowsMask


class RingView(LayerView, AttendingCache):
    """Rows beside a cache of limited size: the committed part in its order in time, then the rows, in one array.

    That array is what the commit leaves to the cache, as a slice with the path's rows moved to the front: it holds all
    that mlx-lm's own update would copy once more, and in the order in which nothing has to be sorted next time.

    waiting: keys and values (1, H, N, D) of the rows, once the layer has brought them.
    shown: keys and values (1, H, C + N, D), the context's first; `waiting` where there is no context.
    """

    def __init__(self, base: RotatingKVCache, rows: Rows, kernels: KernelSet = MLX) -> None:
        self.base = base
        self.rows = rows
        self.kernels = kernels
        self.waiting: tuple[mx.array, mx.array] | None = None
        self.shown: tuple[mx.array, mx.array] | None = None
        stored = 0 if base.keys is None else base.keys.shape[2]
        self._kept = min(base.offset, stored)

    @property
    def offset(self) -> int:
        """Tokens before the rows; where each of them stands, the running forward knows (target/positions.py)."""
        return self.rows.start

    def make_mask(self, n: int, return_array: bool = False, window_size: int | None = None) -> mx.array | RowsMask:
        """As mlx-lm's caches have it, for the rows: over what the ring has kept of the context."""
        keep = self.base.keep
        window = min(window_size or self.base.max_size, self.base.max_size)
        if return_array:
            return self.rows.mask(self._kept, window, keep)
        return self.rows.attention_mask(self.kernels.attention_behind(self._kept), self._kept, window, keep)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """All keys and values, the ring's in their order in time, then the rows'; the ring stays as it is."""
        self.waiting = keys, values
        if self.base.keys is None:
            self.shown = keys, values
        else:
            before = self.base._temporal_order(self.base.keys), self.base._temporal_order(self.base.values)
            self.shown = mx.concatenate([before[0], keys], axis=2), mx.concatenate([before[1], values], axis=2)
        return self.shown

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """What `update_and_fetch` has given: layers that share another one's ask for it."""
        assert self.shown is not None
        return self.shown

    @staticmethod
    def commit_all(views: Sequence[RingView], path: Sequence[int], gather: GatherRows) -> None:
        views = [view for view in views if view.shown is not None]
        in_place = next((i for i, row in enumerate(path) if i != row), len(path))
        if any(view._splits for view in views):
            in_place = 0
        rows: list[mx.array] = []
        if in_place < len(path):
            rows = gather([x for view in views for x in view.waiting or ()], path[in_place:])
        for i, view in enumerate(views):
            view._leave(len(path), in_place, rows[2 * i : 2 * i + 2])

    @property
    def _splits(self) -> bool:
        """Whether what stays is no slice of what was shown: the first tokens stay while later ones go."""
        return self.base.keep > 0 and self._dropped > 0

    @property
    def _dropped(self) -> int:
        """Rows of the context that go: mlx-lm leaves the next token a whole window."""
        return max(0, self._kept - self.base.max_size + 1)

    def _leave(self, count: int, in_place: int, moved: Sequence[mx.array]) -> None:
        """Put a path of so many rows in the cache, of which the first `in_place` stand where they belong.

        moved: keys and values (1, H, count - in_place, D) of the others.
        """
        base = self.base
        assert self.shown is not None
        if self._splits:
            base.update_and_fetch(*moved)
            return
        first, end = self._kept + in_place, self._kept + count
        for array, rows in zip(self.shown, moved, strict=False):
            array[..., first:end, :] = rows
        base.keys, base.values = (array[..., self._dropped : end, :] for array in self.shown)
        base.offset += count
        base._idx = end - self._dropped
