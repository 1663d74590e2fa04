"""What all layers share while the rows of a draft tree go through a target."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels.choice import MLX, KernelSet, TreeAttention
from mlx_ddtree.kernels.tree_attention import KeysOrValues, TreeMask
from mlx_ddtree.tree import DraftTree


class TreeRows:
    """N rows: the tree's nodes, then padding, behind `start` committed tokens; the root's position is start + gap.

    A padding row sees no other row, and nobody sees it.  Everything is made when first asked for.
    """

    def __init__(self, tree: DraftTree, start: int, rows: int, kernels: KernelSet = MLX, gap: int = 0) -> None:
        self.tree, self.start, self.rows, self.kernels, self.gap = tree, start, rows, kernels, gap
        self.is_chain = tree.is_chain and rows == len(tree)
        self._depths = np.zeros(rows, np.int32)
        self._depths[: len(tree)] = tree.depths
        self._positions: mx.array | None = None
        self._ancestors: mx.array | None = None
        self._bits: TreeMask | None = None
        self._masks: dict[tuple[int | None, int, int], mx.array] = {}
        self._tables: dict[int, mx.array] = {}

    @property
    def offset(self) -> int | mx.array:
        """Where the rows stand, for RoPE: consecutively from the root on, or (1, N) int32 positions."""
        if self.is_chain:
            return self.start + self.gap
        if self._positions is None:
            self._positions = mx.array(self._depths[None] + (self.start + self.gap))
        return self._positions

    @property
    def ancestors(self) -> mx.array:
        """(N, N) bool: row i is true at i's ancestors, the root and i itself."""
        if self._ancestors is None:
            tail = np.eye(self.rows, dtype=np.bool_)
            tail[: len(self.tree), : len(self.tree)] = self.tree.ancestor_mask()
            self._ancestors = mx.array(tail)
        return self._ancestors

    @property
    def bits(self) -> TreeMask:
        """The same with 32 rows in a word, and the rows' depths; for kernels, so of at least 8 rows."""
        if self._bits is None:
            count, padding = max(self.rows, 8), np.arange(len(self.tree), self.rows)
            words = np.zeros((count, -(-self.rows // 32)), np.uint32)
            known = self.tree.ancestor_bits()
            words[: len(known), : known.shape[1]] = known
            words[padding, padding // 32] |= np.uint32(1) << (padding % 32).astype(np.uint32)
            self._bits = TreeMask(mx.array(words), mx.array(np.pad(self._depths, (0, count - self.rows))))
        return self._bits

    def attention_mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array | RowsMask:
        """What stands for `mask` where a model passes it on to attention."""
        if self.kernels.attention is not None:
            return RowsMask(self, self.kernels.attention, context, window, keep)
        return self.mask(context, window, keep)

    def mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array:
        """(N, context + N) bool over the last `context` tokens before the root (all of them, or what a cache
        with a limited size has kept), then the rows.

        window: tokens that a row may see, itself among them; the `keep` first ones of the cache always.
        """
        key = (window, context, keep)
        if key not in self._masks:
            seen, tail = mx.ones((self.rows, context), mx.bool_), self.ancestors
            if window is not None:
                depths = mx.array(self._depths)
                first = context - (window - keep - 1) + depths  # of the context that still is in the window
                places = mx.arange(context)[None]
                seen = (places >= first[:, None]) | (places < keep)
                tail = tail & (depths[None] > depths[:, None] - (window - keep))
            self._masks[key] = mx.concatenate([seen, tail], axis=1)
        return self._masks[key]

    def conv_table(self, kernel: int) -> mx.array:
        """(N, kernel) int32: for each row, the places of its last `kernel` tokens, itself included, oldest
        first, in [the kernel - 1 rows before the root, the N rows]."""
        if kernel not in self._tables:
            parents = np.full(self.rows, -1)
            parents[: len(self.tree)] = self.tree.parents
            table = np.empty((self.rows, kernel), np.int32)
            place = np.arange(self.rows)
            for tap in range(kernel - 1, -1, -1):
                table[:, tap] = place + kernel - 1
                # Above the root one step back is one row earlier.
                place = np.where(place >= 0, parents[np.maximum(place, 0)], place - 1)
            self._tables[kernel] = mx.array(table)
        return self._tables[kernel]


@dataclass(frozen=True)
class RowsMask:
    """`TreeRows.mask(context, window, keep)`, not made, for an attention that needs only the bits."""

    rows: TreeRows
    attention: TreeAttention
    context: int
    window: int | None
    keep: int

    def attend(
        self, queries: mx.array, keys: KeysOrValues, values: KeysOrValues, scale: float, sinks: mx.array | None
    ) -> mx.array:
        return self.attention(
            *(queries, keys, values, self.rows.bits),
            context=self.context,
            scale=scale,
            window=self.window,
            keep=self.keep,
            sinks=sinks,
        )

    def dense(self) -> mx.array:
        return self.rows.mask(self.context, self.window, self.keep)
