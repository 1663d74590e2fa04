"""The rows of one forward: tokens that a target computes side by side, where they stand and who of them sees whom.

Who sees whom is made once, as words of 32 rows a bit each (`TreeRows.bits`).  Kernels read the words; the masks of
MLX's own attention are derived from them (kernels.tree_attention.tree_mask), and only where they are asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.kernels.choice import TreeAttention
from mlx_ddtree.kernels.tree_attention import TreeMask, tree_mask
from mlx_ddtree.tree import DraftTree


class Rows(ABC):
    """N rows behind the tokens of the caches, which await the commit of some of them.

    count: N.
    start: tokens in the caches.
    gap: the root's position minus `start`.
    alone: whether this is one row that is computed, and stays, as a step of plain decoding.
    is_chain: whether every row follows the one before, so that mlx-lm's causal mask is theirs.
    """

    count: int
    start: int
    gap: int = 0
    alone: bool = False
    is_chain: bool = False

    @property
    @abstractmethod
    def positions(self) -> mx.array:
        """(1, N) int32: where the rows stand."""

    @abstractmethod
    def mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array:
        """(N, context + N) bool: which of the last `context` tokens before the root, and which rows, a row sees.

        context: all tokens, or what a cache with a limited size has kept of them.
        window: tokens that a row may see, itself among them; None: all.
        keep: first ones of the context that a row sees always.
        """

    @abstractmethod
    def attention_mask(
        self, kernel: TreeAttention | None, context: int, window: int | None = None, keep: int = 0
    ) -> mx.array | RowsMask:
        """What stands for `mask` where a model passes it on to attention; kernel: what may compute the attention."""


@dataclass(frozen=True)
class RowsMask:
    """A mask that is not made yet, for an attention that knows by itself who sees whom.

    attend: (queries, keys, values, scale=, sinks=) -> (1, Hq, N, Dv), in shapes of kernels.tree_attention.
    dense: makes the mask as an array, for everything else.
    """

    attend: Callable[..., mx.array]
    dense: Callable[[], mx.array]


class TreeRows(Rows):
    """The nodes of a draft tree, then padding up to `count` rows.

    A padding row sees no other row, and nobody sees it.  Everything is made when first asked for.
    """

    def __init__(self, tree: DraftTree, start: int, count: int, gap: int = 0) -> None:
        self.tree = tree
        self.start = start
        self.count = count
        self.gap = gap
        self.alone = count == 1
        self.is_chain = tree.is_chain and count == len(tree)
        self._depths = np.zeros(count, np.int32)
        self._depths[: len(tree)] = tree.depths
        self._masks: dict[tuple[int, int | None, int], mx.array] = {}
        self._tables: dict[int, mx.array] = {}

    @cached_property
    def positions(self) -> mx.array:
        """(1, N) int32: where the rows stand."""
        return mx.array(self._positions())

    def _positions(self) -> NDArray[np.int32]:
        return self._depths[None] + np.int32(self.start + self.gap)

    def padded_token_ids(self) -> NDArray[np.int32]:
        """(count,) the tree's tokens, then the root's again."""
        token_ids = np.full(self.count, self.tree.token_ids[0])
        token_ids[: len(self.tree)] = self.tree.token_ids
        return token_ids

    @cached_property
    def bits(self) -> TreeMask:
        """Who sees whom among the rows, and the rows' depths; for kernels, so of at least 8 rows.

        Bit j % 32 of word j // 32 in row i says whether row i sees row j: a node sees its ancestors and itself.
        """
        return TreeMask(*map(mx.array, self._bits()))

    def _bits(self) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        nodes = len(self.tree)
        stored = max(self.count, 8)
        words = np.zeros((stored, -(-self.count // 32)), np.uint32)
        ancestors = self.tree.ancestor_bits()
        words[:nodes, : ancestors.shape[1]] = ancestors
        padding = np.arange(nodes, self.count)
        words[padding, padding // 32] |= np.uint32(1) << (padding % 32).astype(np.uint32)
        return words, np.pad(self._depths, (0, stored - self.count))

    @cached_property
    def ancestors(self) -> mx.array:
        """(N, N) bool: row i is true at i's ancestors, the root and i itself."""
        return self.mask(context=0)

    def mask(self, context: int, window: int | None = None, keep: int = 0) -> mx.array:
        key = (context, window, keep)
        if key not in self._masks:
            self._masks[key] = self._made_mask(context, window, keep)
        return self._masks[key]

    def _made_mask(self, context: int, window: int | None, keep: int) -> mx.array:
        if mx.default_device() == mx.cpu:  # MLX's dozen operations take it five times as long
            return mx.array(self._mask_by_numpy(context, window, keep))
        return tree_mask(self.bits, self.count, context, window, keep)

    def _mask_by_numpy(self, context: int, window: int | None, keep: int) -> NDArray[np.bool_]:
        mask = np.ones((self.count, context + self.count), np.bool_)
        among_rows = mask[:, context:]
        among_rows[:] = np.eye(self.count, dtype=np.bool_)
        among_rows[: len(self.tree), : len(self.tree)] = self.tree.ancestor_mask()
        if window is not None:
            # A row sees `keep` first tokens, and those less than the rest of the window above itself.
            reach = window - keep
            depths = self._depths[:, None]
            places = np.arange(context)
            mask[:, :context] = (places > context - reach + depths) | (places < keep)
            among_rows &= self._depths > depths - reach
        return mask

    def attention_mask(
        self, kernel: TreeAttention | None, context: int, window: int | None = None, keep: int = 0
    ) -> mx.array | RowsMask:
        if kernel is None:
            return self.mask(context, window, keep)
        by_words = partial(kernel, tree=self.bits, context=context, window=window, keep=keep)
        return RowsMask(by_words, partial(self.mask, context, window, keep))

    @cached_property
    def paths(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(leaves, longest) int32: the rows of every path from the root to a leaf, the leaf again up to the longest
        path's length; and (N,) int32: where each row stands among these, counted through; padding rows as the root."""
        leaves = np.setdiff1d(np.arange(len(self.tree)), self.tree.parents)
        longest = int(self._depths.max()) + 1
        paths = np.empty((len(leaves), longest), np.int32)
        places = np.zeros(self.count, np.int32)
        for i, leaf in enumerate(leaves):
            path = self.tree.path_to(int(leaf))
            paths[i] = path + [path[-1]] * (longest - len(path))
            places[path] = i * longest + np.arange(len(path))
        return paths, places

    def conv_table(self, kernel: int) -> mx.array:
        """(N, kernel) int32: where each row's last `kernel` tokens stand, itself included, oldest first.

        Numbers count the kernel - 1 tokens before the root, then the N rows.
        """
        if kernel not in self._tables:
            self._tables[kernel] = mx.array(self._conv_table(kernel))
        return self._tables[kernel]

    def _conv_table(self, kernel: int) -> NDArray[np.int32]:
        parents = np.full(self.count, -1)
        parents[: len(self.tree)] = self.tree.parents
        table = np.empty((self.count, kernel), np.int32)
        row = np.arange(self.count)
        for tap in range(kernel - 1, -1, -1):
            table[:, tap] = row + kernel - 1
            # Above the root one step back is one token earlier.
            row = np.where(row >= 0, parents[np.maximum(row, 0)], row - 1)
        return table
