"""What all layers share while the rows of a draft tree go through a target."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.tree import DraftTree


def pack_bits(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """(N, N) bool -> (N, ceil(N / 32)) uint32, bit a % 32 of word a // 32 for column a."""
    count = len(mask)
    padded = np.zeros((count, -(-count // 32) * 32), np.bool_)
    padded[:, :count] = mask
    return np.packbits(padded, axis=1, bitorder="little").view("<u4")


class TreeRows:
    """N rows: the tree's nodes, then padding, behind `start` committed tokens.

    A padding row sees itself only, and nobody sees it.  Everything is made when first asked for.
    """

    def __init__(self, tree: DraftTree, start: int, rows: int) -> None:
        self.tree, self.start, self.rows = tree, start, rows
        self.is_chain = tree.is_chain and rows == len(tree)
        self._depths = np.zeros(rows, np.int32)
        self._depths[: len(tree)] = tree.depths
        self._positions: mx.array | None = None
        self._ancestors: mx.array | None = None
        self._ancestor_words: mx.array | None = None
        self._masks: dict[tuple[int | None, int, int], mx.array] = {}
        self._tables: dict[int, mx.array] = {}

    @property
    def offset(self) -> int | mx.array:
        """Where the rows stand, for RoPE: consecutively from `start`, or (1, N) int32 positions."""
        if self.is_chain:
            return self.start
        if self._positions is None:
            self._positions = mx.array(self._depths[None] + self.start)
        return self._positions

    @property
    def ancestors(self) -> mx.array:
        """(N, N) bool: row i is true at i's ancestors, the root and i itself."""
        if self._ancestors is None:
            self._ancestors = mx.array(self._ancestor_mask())
        return self._ancestors

    @property
    def ancestor_words(self) -> mx.array:
        """The same as bits, (N, ceil(N / 32)) uint32."""
        if self._ancestor_words is None:
            self._ancestor_words = mx.array(pack_bits(self._ancestor_mask()))
        return self._ancestor_words

    def _ancestor_mask(self) -> NDArray[np.bool_]:
        mask = np.eye(self.rows, dtype=np.bool_)
        mask[: len(self.tree), : len(self.tree)] = self.tree.ancestor_mask()
        return mask

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
