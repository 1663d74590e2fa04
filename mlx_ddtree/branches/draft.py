"""One forward of the drafter for the blocks of several branches of one prompt, whose context they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache
from numpy.typing import NDArray

from mlx_ddtree.branches.rows import BranchSlots
from mlx_ddtree.deft.attention import BLOCK, PreparedPlan, deft_attention
from mlx_ddtree.deft.plans import PrefixTree, make_plan
from mlx_ddtree.drafter.model import ContextCache, DFlashAttention, DFlashDrafter
from mlx_ddtree.drafter.window import WindowCache


class BranchCache(NamedTuple):
    """A layer's context, and how many of the prompt's first tokens a window has left out."""

    cache: KVCache
    first: int = 0

    @classmethod
    def of(cls, cache: ContextCache) -> BranchCache:
        """A layer's context after the prompt; what the branches add is kept whole."""
        return cls(*cache.whole()) if isinstance(cache, WindowCache) else cls(cache)


def draft_branches(
    drafter: DFlashDrafter,
    blocks: mx.array,
    features: mx.array,
    positions: NDArray[np.integer],
    caches: Sequence[BranchCache],
    branch_slots: BranchSlots,
    branches: Sequence[int],
) -> mx.array:
    """One draft for each of `branches`.

    blocks: (n, B, D) embeddings of [bonus token, MASK, ...] of each.
    features: (1, m, taps * D) of the tokens committed since the last draft, in the order of the caches, and their
        positions (m,); they are appended to the caches, which then hold `branch_slots.used` tokens, laid out as
        `branch_slots` says.
    Returns (n, B, D), as `DFlashDrafter` does for one.
    """
    blocks = drafter.scale_embeddings(blocks)
    layout = _Layout(branch_slots, branches, blocks.shape[1], positions)
    for layer, context, cache in zip(drafter.layers, drafter.contexts(features), caches, strict=True):
        blocks = layer.with_attention(blocks, partial(_attend, layer.self_attn, context, cache, layout))
    return drafter.norm(blocks)


def extend_branches(
    drafter: DFlashDrafter, features: mx.array, positions: NDArray[np.integer], caches: Sequence[BranchCache]
) -> None:
    """Append features to the caches without drafting."""
    offsets = mx.array(positions[None].astype(np.int32))
    for layer, context, cache in zip(drafter.layers, drafter.contexts(features), caches, strict=True):
        cache.cache.update_and_fetch(*layer.self_attn.context_keys_values(context, offsets))


@dataclass(frozen=True)
class _Layout:
    """Where the rows of a draft lie and stand: blocks of `size` rows behind the tokens of the branches.

    context: (m,) positions of the tokens that are appended to the caches.
    """

    branch_slots: BranchSlots
    branches: Sequence[int]
    size: int
    context: NDArray[np.integer]

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """(n * size,) positions of the blocks' rows."""
        starts = np.array([self.branch_slots.length(branch) for branch in self.branches])
        return (starts[:, None] + np.arange(self.size)).ravel()

    @cached_property
    def block_offsets(self) -> mx.array:
        """(1, n * size) int32 positions of the blocks' rows."""
        return mx.array(self.blocks[None].astype(np.int32))

    @cached_property
    def offsets(self) -> mx.array:
        """(1, m + n * size) int32 positions of the new context's rows and the blocks'."""
        return mx.array(np.concatenate([self.context, self.blocks])[None].astype(np.int32))

    @cached_property
    def plan(self) -> PreparedPlan:
        """For layers that see everything: a block's rows see each other."""
        branch_slots = self.branch_slots
        count = len(self.branches)
        rows = count * self.size
        slots = [branch_slots.slots[branch] for branch in self.branches]
        tree = PrefixTree(
            np.array([-1] + count * [0] + list(range(1, count + 1))),
            np.array([branch_slots.prefix, *map(len, slots), *count * [self.size]]),
            np.repeat(np.arange(count + 1, 2 * count + 1), self.size),
            np.concatenate(
                [np.arange(branch_slots.prefix), *slots, np.arange(branch_slots.used, branch_slots.used + rows)]
            ),
        )
        return PreparedPlan(make_plan(tree, block=BLOCK, breaks=range(1, count + 1)))

    def mask(self, window: int | None, causal: bool, first_stored: int) -> tuple[mx.array, int]:
        """Who sees whom in layers with a window or an order inside the block.

        first_stored: the first slot that the layer's cache has.
        Returns (n * size, slots) bool, and the slot that its first column stands for: nobody sees the ones before.
        """
        branch_slots = self.branch_slots
        count = len(self.branches)
        slots = branch_slots.used + count * self.size
        # 1. Every slot's position and owner: a branch by its number, -1 for the prompt, -2 for nobody.
        positions = np.zeros(slots, np.int64)
        owners = np.full(slots, -2)
        positions[: branch_slots.prefix] = np.arange(branch_slots.prefix)
        owners[: branch_slots.prefix] = -1
        for i, branch in enumerate(self.branches):
            own = branch_slots.slots[branch]
            positions[own] = branch_slots.prefix + np.arange(len(own))
            owners[own] = i
        positions[branch_slots.used :] = self.blocks
        owners[branch_slots.used :] = np.repeat(np.arange(count), self.size)
        # 2. A row sees the prompt and its own branch, as far as order and window let it.
        seen = (owners == owners[branch_slots.used :, None]) | (owners == -1)
        if causal:
            seen &= positions <= self.blocks[:, None]
        if window is not None:
            seen &= positions > self.blocks[:, None] - window
        first = max(first_stored, int(seen.any(axis=0).argmax()))
        return mx.array(seen[:, first:]), first


def _attend(
    attention: DFlashAttention, context: mx.array, cache: BranchCache, layout: _Layout, blocks: mx.array
) -> mx.array:
    """Blocks (n, B, D) -> the same shape; the context's keys and values stay in the cache, the blocks' do not."""
    flat = blocks.reshape(1, -1, blocks.shape[-1])
    keys, values = cache.cache.update_and_fetch(*attention.all_keys_values(context, flat, layout.offsets))
    cache.cache.trim(flat.shape[1])
    queries = attention.queries(flat, layout.block_offsets)
    if attention.window is None and not attention.causal and attention.sinks is None:
        out = deft_attention(queries, keys, values, layout.plan, scale=attention.scale)
    else:
        mask, first = layout.mask(attention.window, attention.causal, cache.first)
        keys = keys[:, :, first - cache.first :]
        values = values[:, :, first - cache.first :]
        out = mx.fast.scaled_dot_product_attention(
            queries, keys, values, scale=attention.scale, mask=mask, sinks=attention.sinks
        )
    return attention.output(out.transpose(0, 2, 1, 3).reshape(*blocks.shape[:2], -1), blocks)
