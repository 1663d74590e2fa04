"""Several continuations of one prompt in one cache: what a forward over all their draft trees needs to know.

The prompt's keys and values come first in every layer's cache, then those of all branches, interleaved as they were
committed; a branch knows which are its own.  The rows of a forward see the prompt, their own branch and their own path.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, QuantizedKVCache
from numpy.typing import NDArray

from mlx_ddtree.deft.attention import BLOCK, PreparedPlan, deft_attention
from mlx_ddtree.deft.plans import PrefixTree, make_plan
from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.choice import TreeAttention
from mlx_ddtree.target.rows import Rows, RowsMask
from mlx_ddtree.tree import DraftTree

Slots = NDArray[np.int64]
"""Places of tokens in a cache, counted from its first."""

NO_WINDOWS = (
    "several continuations at once need full attention in every layer, and this model has layers with windows or a "
    "recurrent state; ask for one continuation at a time, with a seed each"
)


class BranchSlots:
    """Where the branches' committed tokens lie in caches that hold `prefix` tokens of the prompt before them.

    slots: of each branch, oldest first.
    used: slots of the caches that are taken, the prompt's among them.
    """

    def __init__(self, prefix: int, branches: int) -> None:
        self.prefix = prefix
        self.used = prefix
        self.slots: list[Slots] = [np.zeros(0, np.int64) for _ in range(branches)]

    def length(self, branch: int) -> int:
        """Tokens of a branch, the prompt's among them; its next one stands at this position."""
        return self.prefix + len(self.slots[branch])

    def append(self, counts: Sequence[int]) -> None:
        """Each branch got so many tokens, one branch behind the other."""
        for branch, count in enumerate(counts):
            new = np.arange(self.used, self.used + count)
            self.slots[branch] = np.concatenate([self.slots[branch], new])
            self.used += count

    def drop(self, branch: int) -> None:
        """Nobody reads this branch's tokens any more."""
        self.slots[branch] = np.zeros(0, np.int64)

    def compact(self, caches: Sequence[tuple[KVCache | QuantizedKVCache, int]]) -> None:
        """Bring what is read to the front, branch by branch, and forget the rest.

        caches: with the number of first tokens that each lacks; behind those it holds `used` slots.
        """
        order = np.concatenate(self.slots)
        for cache, absent in caches:
            slots = mx.array(order - absent)
            start = self.prefix - absent
            for part in (cache.keys, cache.values):
                for x in [part] if isinstance(part, mx.array) else part or []:
                    kept = mx.take(x, slots, axis=2)
                    mx.eval(kept)  # else x would be read while it is assigned to, and copied whole
                    x[..., start : start + len(order), :] = kept
            cache.offset -= self.used - self.prefix - len(order)
        counts = [len(slots) for slots in self.slots]
        self.used = self.prefix
        self.slots = [np.zeros(0, np.int64) for _ in counts]
        self.append(counts)


class ForestRows(Rows):
    """The rows of some branches' trees, one tree behind the other, without padding.

    branches: whose trees they are; trees: theirs, in this order.
    places: (N,) positions of the rows.
    firsts: the first row of each tree, then N.
    """

    def __init__(self, branch_slots: BranchSlots, branches: Sequence[int], trees: Sequence[DraftTree]) -> None:
        self.branch_slots = branch_slots
        self.branches = branches
        self.trees = trees
        self.start = branch_slots.used
        self.count = sum(map(len, trees))
        roots = [np.full(len(tree), branch_slots.length(branch)) for branch, tree in zip(branches, trees, strict=True)]
        self.places = np.concatenate(roots) + np.concatenate([tree.depths for tree in trees])
        self.firsts = np.cumsum([0, *map(len, trees)])

    @cached_property
    def positions(self) -> mx.array:
        """(1, N) int32: where the rows stand."""
        return mx.array(self.places[None].astype(np.int32))

    @cached_property
    def prefixes(self) -> PrefixTree:
        """The tree of runs that the rows are queries of: the prompt, the branches, their nodes."""
        count = len(self.trees)
        slots = [self.branch_slots.slots[branch] for branch in self.branches]
        parents = [np.array([-1] + count * [0])]
        for i, tree in enumerate(self.trees):
            first = 1 + count + self.firsts[i]
            parents.append(np.where(tree.parents < 0, 1 + i, tree.parents + first))
        lengths = [self.branch_slots.prefix, *map(len, slots)]
        rows = np.arange(self.start, self.start + self.count)
        return PrefixTree(
            np.concatenate(parents).astype(np.int64),
            np.concatenate([lengths, np.ones(self.count)]).astype(np.int64),
            np.arange(1 + count, 1 + count + self.count),
            np.concatenate([np.arange(self.branch_slots.prefix), *slots, rows]),
        )

    @cached_property
    def plan(self) -> PreparedPlan:
        """Flatten (deft/plans.py): the prompt in blocks that all share, then every branch and its tree."""
        return PreparedPlan(make_plan(self.prefixes, block=BLOCK, breaks=range(1, 1 + len(self.trees))))

    def attention_mask(
        self, kernel: TreeAttention | None, context: int, window: int | None = None, keep: int = 0
    ) -> mx.array | RowsMask:
        """Attention by the plan, whatever the kernel.  Raises UnsupportedModelError for windows."""
        if window is not None or keep:
            raise UnsupportedModelError(NO_WINDOWS)
        return RowsMask(partial(deft_attention, plan=self.plan), lambda: self._dense)

    def mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array:
        """(N, context + N) bool, for layers that attend in a way of their own; context: all tokens of the caches.

        Raises UnsupportedModelError for windows.
        """
        if window is not None or keep:
            raise UnsupportedModelError(NO_WINDOWS)
        return self._dense

    @cached_property
    def _dense(self) -> mx.array:
        plan = self.plan.plan
        mask = np.zeros((self.count, self.start + self.count), np.bool_)
        for i, (first, end) in enumerate(plan.rows):
            queries = plan.queries[slice(*plan.takes[i])]
            slots = plan.slots[first:end]
            clear = plan.clear[i]
            mask[np.ix_(queries, slots[:clear])] = True
            mask[np.ix_(queries, slots[clear:])] = plan.mask(i)
        return mx.array(mask)


def check_full_attention(cache: Sequence[object]) -> None:
    """Raise UnsupportedModelError unless every layer's cache keeps all tokens and can be read in part."""
    if not all(type(layer) in (KVCache, QuantizedKVCache) for layer in cache):
        raise UnsupportedModelError(NO_WINDOWS)
