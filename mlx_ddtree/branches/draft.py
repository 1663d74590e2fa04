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

from mlx_ddtree.branches.rows import Tails
from mlx_ddtree.deft.attention import BLOCK, PreparedPlan, deft_attention
from mlx_ddtree.deft.plans import PrefixTree, make_plan
from mlx_ddtree.drafter.model import ContextCache, DFlashAttention, DFlashDrafter
from mlx_ddtree.drafter.window import WindowCache


class BranchCache(NamedTuple):
    """A layer's rows, and how many of the prompt's a window has left out before them."""

    rows: KVCache
    first: int = 0

    @classmethod
    def of(cls, cache: ContextCache) -> BranchCache:
        """After the prompt; tails are kept whole."""
        return cls(*cache.whole()) if isinstance(cache, WindowCache) else cls(cache)


def draft_branches(
    drafter: DFlashDrafter,
    blocks: mx.array,
    features: mx.array,
    positions: NDArray[np.integer],
    caches: Sequence[BranchCache],
    tails: Tails,
    branches: Sequence[int],
) -> mx.array:
    """One draft for each of `branches`.

    blocks: (n, B, D) embeddings of [bonus token, MASK, ...] of each.
    features: (1, m, taps * D) of the tokens committed since the last draft, in the order of the caches, and their
        positions (m,); they are appended to the caches, which then hold `tails.used` rows, laid out as `tails` says.
    Returns (n, B, D), as `DFlashDrafter` does for one.
    """
    context = drafter.context(features)
    blocks = drafter.scale_embeddings(blocks)
    layout = _Layout(tails, branches, blocks.shape[1], positions)
    for layer, cache in zip(drafter.layers, caches, strict=True):
        blocks = layer.with_attention(blocks, partial(_attend, layer.self_attn, context, cache, layout))
    return drafter.norm(blocks)


def extend_branches(
    drafter: DFlashDrafter, features: mx.array, positions: NDArray[np.integer], caches: Sequence[BranchCache]
) -> None:
    """Append features to the caches without drafting."""
    context, offsets = drafter.context(features), mx.array(positions[None].astype(np.int32))
    for layer, cache in zip(drafter.layers, caches, strict=True):
        cache.rows.update_and_fetch(*layer.self_attn.keys_values(context, offsets))


@dataclass(frozen=True)
class _Layout:
    """Where the rows of a draft lie and stand: blocks of `size` rows behind what the tails tell."""

    tails: Tails
    branches: Sequence[int]
    size: int
    context: NDArray[np.integer]

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """(n * size,) positions of the blocks' rows."""
        starts = np.array([self.tails.prefix + len(self.tails.slots[b]) for b in self.branches])
        return (starts[:, None] + np.arange(self.size)).ravel()

    @cached_property
    def block_offsets(self) -> mx.array:
        return mx.array(self.blocks[None].astype(np.int32))

    @cached_property
    def offsets(self) -> mx.array:
        """Of the new context rows and the blocks'."""
        return mx.array(np.concatenate([self.context, self.blocks])[None].astype(np.int32))

    @cached_property
    def plan(self) -> PreparedPlan:
        """For layers that see everything: a block's rows see each other."""
        tails, count = self.tails, len(self.branches)
        slots = [tails.slots[b] for b in self.branches]
        tree = PrefixTree(
            np.array([-1] + count * [0] + list(range(1, count + 1))),
            np.array([tails.prefix, *map(len, slots), *count * [self.size]]),
            np.repeat(np.arange(count + 1, 2 * count + 1), self.size),
            np.concatenate([np.arange(tails.prefix), *slots, np.arange(tails.used, tails.used + count * self.size)]),
        )
        return PreparedPlan(make_plan(tree, block=BLOCK, breaks=range(1, count + 1)))

    def mask(self, window: int | None, causal: bool, held: int) -> tuple[mx.array, int]:
        """(n * size, rows) bool for layers with a window or an order inside the block, and the first row that it
        is about: nobody sees the ones before, or they are not `held`."""
        tails, count = self.tails, len(self.branches)
        rows = tails.used + count * self.size
        places, owners = np.zeros(rows, np.int64), np.full(rows, -2)
        places[: tails.prefix], owners[: tails.prefix] = np.arange(tails.prefix), -1
        for i, b in enumerate(self.branches):
            places[tails.slots[b]] = tails.prefix + np.arange(len(tails.slots[b]))
            owners[tails.slots[b]] = i
        places[tails.used :], owners[tails.used :] = self.blocks, np.repeat(np.arange(count), self.size)
        own = owners[tails.used :, None]
        seen = (owners == own) | (owners == -1)
        if causal:
            seen &= places <= self.blocks[:, None]
        if window is not None:
            seen &= places > self.blocks[:, None] - window
        first = max(held, int(seen.any(axis=0).argmax()))
        return mx.array(seen[:, first:]), first


def _attend(
    attention: DFlashAttention, context: mx.array, cache: BranchCache, layout: _Layout, blocks: mx.array
) -> mx.array:
    """blocks (n, B, D) -> the same shape; the context's rows stay in the cache, the blocks' do not."""
    flat = blocks.reshape(1, -1, blocks.shape[-1])
    rows = mx.concatenate([context, flat], axis=1)
    keys, values = cache.rows.update_and_fetch(*attention.keys_values(rows, layout.offsets))
    cache.rows.trim(flat.shape[1])
    queries = attention.queries(flat, layout.block_offsets)
    if attention.window is None and not attention.causal:
        out = deft_attention(queries, keys, values, layout.plan, scale=attention.scale)
    else:
        mask, first = layout.mask(attention.window, attention.causal, cache.first)
        behind = first - cache.first
        out = mx.fast.scaled_dot_product_attention(
            queries, keys[:, :, behind:], values[:, :, behind:], scale=attention.scale, mask=mask
        )
    return attention.o_proj(out.transpose(0, 2, 1, 3).reshape(*blocks.shape[:2], -1))
