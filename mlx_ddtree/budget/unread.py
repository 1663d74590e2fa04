"""When a block's best path is verified before the host has read it.

A tree has to be read: the host builds it and cuts it to the nodes that are worth their rows.  The whole chain of a
draft's best tokens has not: it goes from the drafter to the target on the device.  That saves a wait and all that the
host does in it, and it costs the rows that reading would have left out, or the branches that it would have added.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.policy import Choice
from mlx_ddtree.budget.survival import MEMORY, Survival

FIRST_READ = 6
"""Drafts of a text that are read before one is not, so that the comparison means something."""
READ_EVERY = 8
"""At most so many chains in a row stay unread: what trees are worth has to be seen, now and then anew."""


class UnreadChains:
    """One text's comparison of whole chains with what is chosen of the drafts that are read.

    block_sizes: tokens of the blocks that may be drafted, ascending.
    survival: of a chain's depths.
    advantage: tokens a round by which a chain would have been worth more than what was chosen, a running mean.
    """

    def __init__(self, cost: CostTable, block_sizes: list[int]) -> None:
        self.cost = cost
        self.block_sizes = [size for size in block_sizes if size <= cost.rows[-1]]
        self.survival = Survival(max(block_sizes, default=1) - 1, 1 - MEMORY)
        self.advantage = 0.0
        self._compared = 0
        self._in_a_row = 0

    def compare(self, reached: NDArray[np.floating], choice: Choice, rate: float, context: int) -> None:
        """Take note of a draft that was read.

        reached: (block_size,) probability that at least d = 0.. tokens of its best path are accepted.
        choice: what was chosen instead; rate: tokens a second by which its value was counted.
        """
        self._in_a_row = 0
        block_size = len(reached)
        if block_size > self.cost.rows[-1]:
            return
        self.survival.add(reached)
        unread = float(reached.sum()) - rate * self.cost.unread_chain(block_size, context)
        read = choice.value - rate * self.cost.drafting(block_size)
        weight = max(MEMORY, 1 / (self._compared + 1))
        self.advantage += weight * (unread - read - self.advantage)
        self._compared += 1

    def next_block(self, rate: float, context: int, affordable: float = math.inf) -> int:
        """Tokens of the block whose best path is verified unread now, root included; 0 where reading is worth more.

        affordable: seconds that draft and verification may take.
        """
        if self._compared < FIRST_READ or self._in_a_row >= READ_EVERY or self.advantage <= 0:
            return 0
        expected = self.survival.reached()
        seconds = np.array([self.cost.unread_chain(size, context) for size in self.block_sizes])
        values = 1 + expected[np.array(self.block_sizes) - 2] - rate * seconds
        best = int(np.argmax(np.where(seconds <= affordable, values, -np.inf)))
        return self.block_sizes[best] if seconds[best] <= affordable else 0

    def expected(self, block_size: int) -> float:
        """Tokens of a block's best path that are likely to be accepted."""
        return float(self.survival.reached()[block_size - 2])

    def saw(self, accepted: int, block_size: int, seconds: float, rate: float, context: int) -> None:
        """Learn from a chain that was verified unread; seconds: of its draft and its verification.

        One that was worth less than the present rate has the next draft read, which shows whether it is the text.
        """
        self._in_a_row += 1
        if 1 + accepted < rate * seconds:
            self._in_a_row = READ_EVERY
        self.survival.add((np.arange(block_size) <= accepted).astype(np.float64))
        self.cost.saw_unread(block_size, context, seconds)
