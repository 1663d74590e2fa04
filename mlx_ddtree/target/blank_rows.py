"""The rows of a tree that is not known yet, so that a forward over them can be built before it is.

A graph of MLX operations is made by Python, layer by layer, and that takes as long for a deep model as a good part of
its work.  Where the number of rows is known, everything else that a tree decides is content of small arrays: tokens,
positions, who sees whom.  The graph is built on such arrays while the device is busy with something else, and the host
writes the tree into them before it sends the graph off.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.kernels.tree_attention import TreeMask, tree_mask
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree


class Blank:
    """An array whose content comes later, and before anything that reads it is evaluated.

    It is available from the start, so MLX never makes it anew, and its memory is the host's as well.
    """

    def __init__(self, content: NDArray) -> None:
        self.array = mx.array(content)

    def fill(self, content: NDArray) -> None:
        """Write the content; the shape is the one that the blank was made with."""
        np.asarray(self.array)[...] = content


class BlankRows(TreeRows):
    """`count` rows, of which a tree of at most as many nodes will be known later; then `fill` it in, once.

    chain: whether it will have no branches, so that mlx-lm's causal mask is the rows'.
    token_ids: (count,) int32, those of the rows: the tree's, padded with the root's.
    """

    def __init__(self, start: int, count: int, gap: int = 0, chain: bool = False) -> None:
        super().__init__(DraftTree.root(0), start, count, gap)
        self.is_chain = chain
        self._token_ids = Blank(np.zeros(count, np.int32))
        self.token_ids = self._token_ids.array
        self._later: list[Callable[[TreeRows], None]] = []

    @cached_property
    def positions(self) -> mx.array:
        """Where the rows stand, as TreeRows has it."""
        blank = Blank(self._positions())
        self._later.append(lambda known: blank.fill(known._positions()))
        return blank.array

    @cached_property
    def bits(self) -> TreeMask:
        """Who sees whom among the rows, and the rows' depths, as TreeRows has it."""
        words, depths = map(Blank, self._bits())

        def fill(known: TreeRows) -> None:
            known_words, known_depths = known._bits()
            words.fill(known_words)
            depths.fill(known_depths)

        self._later.append(fill)
        return TreeMask(words.array, depths.array)

    def _made_mask(self, context: int, window: int | None, keep: int) -> mx.array:
        """Derived from `bits` on the device: the tree is written into them after this."""
        return tree_mask(self.bits, self.count, context, window, keep)

    def conv_table(self, kernel: int) -> mx.array:
        """(count, kernel) int32, as TreeRows has it."""
        if kernel not in self._tables:
            blank = Blank(self._conv_table(kernel))
            self._later.append(lambda known: blank.fill(known._conv_table(kernel)))
            self._tables[kernel] = blank.array
        return self._tables[kernel]

    def fill(self, tree: DraftTree) -> None:
        """Write the tree into everything that was asked for so far; nothing of it may have been evaluated."""
        known = TreeRows(tree, self.start, self.count, self.gap)
        self._token_ids.fill(known.padded_token_ids())
        for write in self._later:
            write(known)


@cache
def can_fill() -> bool:
    """Whether what the host writes into a blank reaches the default device, tried once; elsewhere nothing is built
    ahead."""
    blank = Blank(np.zeros(9, np.int32))
    later = blank.array[1:] * 2 + 1
    try:
        blank.fill(np.arange(9))
    except (TypeError, ValueError):  # no memory that the host may write
        return False
    return later.tolist() == list(range(3, 18, 2))
