"""Models whose own code reads its caches by place: every path of a draft tree runs through the whole model by itself.

Chunks that are counted in the cache, sparse selections of its blocks, caches of a kind that only one model has: no view
can stand for these.  All paths side by side, as a batch over copies of the caches, need no view and no mask of ours;
and a chain is one forward over the caches themselves.  The commit takes that back and runs the accepted path once
more, where the caches cannot just be cut.  That is dear for bushy trees behind long contexts, and exact for every model
that can be asked for several tokens and for a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.models.cache import CacheList, KVCache, QuantizedKVCache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.rope import Positions
from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.attention import AttendingCache
from mlx_ddtree.target.marks import Mark, alias
from mlx_ddtree.target.rows import Rows, TreeRows
from mlx_ddtree.target.views import Pending


class PathTarget(TreeTarget):
    """A TreeTarget that asks its model for paths, never for a tree.

    why: what is against a tree's rows going through this model together.
    """

    builds_ahead = False

    def __init__(self, model: nn.Module, why: str = "") -> None:
        super().__init__(model)
        self.why = why

    def forward_rows(
        self, token_ids: mx.array, rows: Rows, cache: Sequence[Any]
    ) -> tuple[mx.array, mx.array | None, Pending]:
        """Tokens (1, N) of a draft tree's rows -> hidden states and features as from `forward`, and what awaits the
        commit.  Raises UnsupportedModelError for the rows of several continuations."""
        if rows.alone:
            return super().forward_rows(token_ids, rows, cache)
        if not isinstance(rows, TreeRows):
            raise UnsupportedModelError("this model computes one continuation at a time: ask for several one by one")
        marked = self.mark(cache)
        if rows.is_chain:
            at = rows.positions if self.asked.turns_by_length else rows.gap
            hidden, features = self.forward(token_ids, cache, at)
        else:
            hidden, features = self._all_paths(token_ids, rows, cache)
        return hidden, features, PathPending(self, token_ids, rows, cache, marked)

    def _all_paths(self, token_ids: mx.array, rows: TreeRows, cache: Sequence[Any]) -> tuple[mx.array, mx.array | None]:
        """Hidden states (1, N, D) and features of all rows; `cache` stays as it is."""
        paths, places = rows.paths
        count, length = paths.shape
        nodes, chosen = mx.array(paths.reshape(-1)), mx.array(places)

        def of_rows(x: mx.array) -> mx.array:
            return x.reshape(1, count * length, -1)[:, chosen]

        at: Positions = rows.gap
        if self.asked.turns_by_length:
            at = rows.positions[0, nodes].reshape(count, length)
        hidden, features = self.run(
            token_ids[0, nodes].reshape(count, length), [spread(each, count) for each in cache], at
        )
        return of_rows(hidden), None if features is None else of_rows(features)

    def check_cache(self, cache: Sequence[Any]) -> None:
        """Raise UnsupportedModelError for caches of our own, which stand for one path."""
        for layer_cache in cache:
            if isinstance(layer_cache, AttendingCache):
                raise UnsupportedModelError(f"{type(layer_cache).__name__} cannot hold this model's draft trees")

    def mark(self, cache: Sequence[Any]) -> Mark:
        """Where the caches stand, for `rewind`: whatever they hold, as references."""
        return [_standing(layer_cache) for layer_cache in cache]

    def rewind(self, cache: Sequence[Any], marked: Mark) -> None:
        """Undo everything since `mark`; the mark stays good for another time."""
        for layer_cache, standing in zip(cache, marked, strict=True):
            if isinstance(layer_cache, CacheList):
                self.rewind(layer_cache.caches, list(standing))
            else:
                vars(layer_cache).update(_aliased(standing[0]))


class PathPending(Pending):
    """The rows of one verification, of which a commit keeps a path."""

    def __init__(
        self, target: PathTarget, token_ids: mx.array, rows: TreeRows, cache: Sequence[Any], marked: Mark
    ) -> None:
        super().__init__()
        self.target = target
        self.token_ids = token_ids
        self.rows = rows
        self.cache = cache
        self.marked = marked

    def commit(self, path: Sequence[int]) -> None:
        """Keep the rows of `path`, node indices with the root first, in path order."""
        if self.rows.is_chain:
            more = self.rows.count - len(path)
            if not more or _cut(self.cache, more):
                return
            self.target.rewind(self.cache, self.marked)
        at: Positions = self.rows.gap
        nodes = mx.array(list(path), mx.int32)
        if self.target.asked.turns_by_length:
            at = self.rows.positions[:, nodes]
        self.target.forward(self.token_ids[:, nodes], self.cache, at)


def spread(layer_cache: Any, count: int) -> Any:
    """A cache for `count` continuations of what this one holds."""
    if isinstance(layer_cache, CacheList):
        return CacheList(*(spread(part, count) for part in layer_cache.caches))
    held = tree_map(lambda x: mx.repeat(x, count, axis=0) if isinstance(x, mx.array) else x, vars(layer_cache))
    other = copy(layer_cache)
    vars(other).update(held)
    return other


def _cut(cache: Sequence[Any], rows: int) -> bool:
    """Take the last rows back, if all caches keep what stood before them; whether they do."""
    parts = [part for each in cache for part in (each.caches if isinstance(each, CacheList) else [each])]
    if not all(type(part) in (KVCache, QuantizedKVCache) for part in parts):
        return False
    for part in parts:
        part.trim(rows)
    return True


def _standing(layer_cache: Any) -> tuple[Any, ...]:
    if isinstance(layer_cache, CacheList):
        return tuple(map(_standing, layer_cache.caches))
    if type(layer_cache) in (KVCache, QuantizedKVCache):  # what stands before the offset never changes
        return ({"offset": layer_cache.offset},)
    return (_aliased(vars(layer_cache)),)


def _aliased(held: dict[str, Any]) -> dict[str, Any]:
    """What a cache holds, in lists and arrays that stay when the cache's own are assigned to."""
    return tree_map(lambda x: alias(x) if isinstance(x, mx.array) else x, held)
