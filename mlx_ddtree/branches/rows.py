"""Several continuations of one prompt in one cache: what a forward over all their draft trees needs to know.

The prompt's rows come first in every layer's cache, then those of all branches, interleaved as they were committed;
a branch knows which are its own.  The rows of a forward see the prompt, their own branch and their own path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, QuantizedKVCache
from numpy.typing import NDArray

from mlx_ddtree.deft.attention import BLOCK, PreparedPlan, deft_attention
from mlx_ddtree.deft.plans import PrefixTree, make_plan
from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.choice import KernelSet
from mlx_ddtree.kernels.tree_attention import KeysOrValues
from mlx_ddtree.target.rows import RowsMask, TreeRows
from mlx_ddtree.tree import DraftTree

Slots = NDArray[np.int64]


class Tails:
    """Where the branches' committed rows lie in caches that hold `prefix` rows before them.

    slots: of each branch, oldest first, counted from the cache's first row.  used: rows of the caches.
    """

    def __init__(self, prefix: int, branches: int) -> None:
        self.prefix = self.used = prefix
        self.slots: list[Slots] = [np.zeros(0, np.int64) for _ in range(branches)]

    def append(self, counts: Sequence[int]) -> None:
        """Each branch got so many rows, one branch behind the other."""
        for branch, count in enumerate(counts):
            self.slots[branch] = np.concatenate([self.slots[branch], np.arange(self.used, self.used + count)])
            self.used += count

    def drop(self, branch: int) -> None:
        """Nobody reads this branch's rows any more."""
        self.slots[branch] = np.zeros(0, np.int64)

    def compact(self, caches: Sequence[tuple[KVCache | QuantizedKVCache, int]]) -> None:
        """Bring what is read to the front, branch by branch, and forget the rest.

        Caches hold `used` rows each but for the first few, so many.
        """
        order = np.concatenate(self.slots)
        for cache, absent in caches:
            rows, start = mx.array(order - absent), self.prefix - absent
            for part in (cache.keys, cache.values):
                for x in [part] if isinstance(part, mx.array) else part or []:
                    kept = mx.take(x, rows, axis=2)
                    mx.eval(kept)  # else x would be read while it is assigned to, and copied whole
                    x[..., start : start + len(order), :] = kept
            cache.offset -= self.used - self.prefix - len(order)
        counts = [len(slots) for slots in self.slots]
        self.used, self.slots = self.prefix, [np.zeros(0, np.int64) for _ in counts]
        self.append(counts)


class ForestRows(TreeRows):
    """The rows of some branches' trees, one tree behind the other, without padding."""

    def __init__(self, tails: Tails, branches: Sequence[int], trees: Sequence[DraftTree], kernels: KernelSet) -> None:
        """trees: of these `branches`, in this order."""
        self.tails, self.branches, self.trees, self.kernels = tails, branches, trees, kernels
        self.start, self.rows = tails.used, sum(map(len, trees))
        self.is_chain = False
        starts = [np.full(len(t), tails.prefix + len(tails.slots[b])) for b, t in zip(branches, trees, strict=True)]
        self.positions = np.concatenate(starts) + np.concatenate([tree.depths for tree in trees])
        self.firsts = np.cumsum([0, *map(len, trees)])

    @cached_property
    def offset(self) -> mx.array:
        """(1, N) int32 positions."""
        return mx.array(self.positions[None].astype(np.int32))

    @cached_property
    def prefixes(self) -> PrefixTree:
        """Prompt, tails, nodes: the tree of runs that the rows are queries of."""
        count, slots = len(self.trees), [self.tails.slots[b] for b in self.branches]
        parents = [np.array([-1] + count * [0])]
        for i, tree in enumerate(self.trees):
            first = 1 + count + self.firsts[i]
            parents.append(np.where(tree.parents < 0, 1 + i, tree.parents + first))
        lengths = [self.tails.prefix, *map(len, slots)]
        return PrefixTree(
            np.concatenate(parents).astype(np.int64),
            np.concatenate([lengths, np.ones(self.rows)]).astype(np.int64),
            np.arange(1 + count, 1 + count + self.rows),
            np.concatenate([np.arange(self.tails.prefix), *slots, np.arange(self.start, self.start + self.rows)]),
        )

    @cached_property
    def plan(self) -> PreparedPlan:
        """Flatten: the prompt in blocks that all share, then every branch's tail and tree."""
        return PreparedPlan(make_plan(self.prefixes, block=BLOCK, breaks=range(1, 1 + len(self.trees))))

    def attention_mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array | RowsMask:
        if window is not None or keep:
            raise UnsupportedModelError(NO_WINDOWS)
        return ForestMask(self)

    @cached_property
    def _dense(self) -> mx.array:
        plan, mask = self.plan.plan, np.zeros((self.rows, self.start + self.rows), np.bool_)
        for i, (first, end) in enumerate(plan.rows):
            queries, slots = plan.queries[slice(*plan.takes[i])], plan.slots[first:end]
            mask[np.ix_(queries, slots[: plan.clear[i]])] = True
            mask[np.ix_(queries, slots[plan.clear[i] :])] = plan.mask(i)
        return mx.array(mask)

    def mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array:
        """(N, context + N) bool, for layers that attend in a way of their own."""
        if window is not None or keep:
            raise UnsupportedModelError(NO_WINDOWS)
        return self._dense


NO_WINDOWS = (
    "several continuations at once need full attention in every layer, and this model has layers with windows or a "
    "recurrent state; ask for one continuation at a time, with a seed each"
)


def check_full_attention(cache: Sequence[object]) -> None:
    """Raise UnsupportedModelError unless every layer's cache keeps all rows and can be read in part."""
    if not all(type(layer) in (KVCache, QuantizedKVCache) for layer in cache):
        raise UnsupportedModelError(NO_WINDOWS)


@dataclass(frozen=True, init=False)
class ForestMask(RowsMask):
    """Who sees what, for an attention by plan."""

    def __init__(self, rows: ForestRows) -> None:
        object.__setattr__(self, "rows", rows)

    def attend(
        self, queries: mx.array, keys: KeysOrValues, values: KeysOrValues, scale: float, sinks: mx.array | None
    ) -> mx.array:
        assert isinstance(self.rows, ForestRows)
        return deft_attention(queries, keys, values, self.rows.plan, scale=scale, sinks=sinks)

    def dense(self) -> mx.array:
        return self.rows.mask(self.rows.start)
