"""When a block's best path is verified before the host has read it.

A tree has to be read: the host builds it and cuts it to the nodes that are worth their rows.  The whole chain of a
draft's best tokens has not: it goes from the drafter to the target on the device.  That saves a wait and all that the
host does in it, and it costs the rows that reading would have left out, or the branches that it would have added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.policy import Choice
from mlx_ddtree.budget.survival import MEMORY, Survival

FIRST_READ = 4
"""Drafts that are read before one is not, so that the comparison means something."""
READ_EVERY = 16
"""At most so many chains in a row stay unread: what trees are worth has to be seen, now and then anew."""
TRY_EVERY = 8
"""Drafts that are read, of any text, before a chain that is nearly worth as much is not: its time has to be seen."""
NEARLY = 0.2
"""Share of a chain's seconds by which it may seem to take too long, and is still tried."""
OTHER_TEXTS = 1 / 48
"""Weight of the newest draft in what is known of all texts."""


class Advantage:
    """Tokens a round by which whole chains would have been worth more than what was chosen of drafts that were read.

    mean: (block sizes,) running means.
    compared: (block sizes,) drafts that they come from, a few of other texts' among them.
    known: the same of all texts, where one text's begins, and which hears of every draft of it; None in that itself.
    since_a_chain: drafts of all texts that were read since one was not; counted in what is known of all.
    """

    def __init__(self, sizes: int, known: Advantage | None = None) -> None:
        self.known = known
        self.since_a_chain = 0
        self.mean = np.zeros(sizes)
        self.compared = np.zeros(sizes)
        if known is not None:
            self.mean += known.mean
            self.compared += np.minimum(known.compared, FIRST_READ - 1)

    def add(self, more: NDArray[np.float64]) -> None:
        """Count a draft; more: (block sizes up to its own,) tokens."""
        count = len(more)
        least = MEMORY if self.known is not None else OTHER_TEXTS
        weight = np.maximum(least, 1 / (self.compared[:count] + 1))
        self.mean[:count] += weight * (more - self.mean[:count])
        self.compared[:count] += 1
        if self.known is not None:
            self.known.add(more)

    def load(self, mean: Sequence[float], compared: NDArray[np.float64]) -> None:
        """Take over what an earlier run found; numbers of other sizes are ignored."""
        if len(mean) == len(compared) == len(self.mean):
            self.mean = np.array(mean)
            self.compared = compared


class UnreadChains:
    """One text's comparison of whole chains with what is chosen of the drafts that are read.

    block_sizes: tokens of the blocks that may be drafted, ascending.
    known: the comparison of all texts, by the same sizes.
    survival: of a chain's depths.
    """

    def __init__(self, cost: CostTable, block_sizes: list[int], known: Advantage | None = None) -> None:
        self.cost = cost
        self.block_sizes = [size for size in block_sizes if size <= cost.rows[-1]]
        self.survival = Survival(max(block_sizes, default=1) - 1, 1 - MEMORY)
        if known is None or len(known.mean) != len(self.block_sizes):
            known = Advantage(len(self.block_sizes))
        self.known = known
        self.advantage = Advantage(len(self.block_sizes), known)
        self._in_a_row = 0

    def compare(self, reached: NDArray[np.floating], choice: Choice, rate: float, context: int) -> None:
        """Take note of a draft that was read.

        reached: (block_size,) probability that at least d = 0.. tokens of its best path are accepted.
        choice: what was chosen instead; rate: tokens a second by which its value was counted.
        """
        self._in_a_row = 0
        self.known.since_a_chain += 1
        self.survival.add(reached)
        read = choice.value - rate * self.cost.drafting(len(reached))
        shorter = [size for size in self.block_sizes if size <= len(reached)]
        expected = np.cumsum(reached)[np.array(shorter, int) - 1]
        seconds = self.cost.unread_chains(shorter, context)
        self.advantage.add(expected - rate * seconds - read)

    def next_block(self, rate: float, context: int, affordable: float = math.inf) -> int:
        """Tokens of the block whose best path is verified unread now, root included; 0 where reading is worth more.

        affordable: seconds that draft and verification may take.
        """
        known = self.advantage.compared >= FIRST_READ
        if self._in_a_row >= READ_EVERY or not known.any():
            return 0
        seconds = self.cost.unread_chains(self.block_sizes, context)
        worth = np.where(known & (seconds <= affordable), self.advantage.mean, -np.inf)
        best = int(np.argmax(worth))
        lacking = NEARLY * rate * seconds[best] if self.known.since_a_chain >= TRY_EVERY else 0.0
        return self.block_sizes[best] if worth[best] > -lacking else 0

    def expected(self, block_size: int) -> float:
        """Tokens of a block's best path that are likely to be accepted."""
        return float(self.survival.reached()[block_size - 2])

    def saw(self, accepted: int, block_size: int, seconds: float, context: int) -> None:
        """Learn from a chain that was verified unread; seconds: of its draft and its verification."""
        self._in_a_row += 1
        self.known.since_a_chain = 0
        self.survival.add((np.arange(block_size) <= accepted).astype(np.float64))
        self.cost.saw_unread(block_size, context, seconds)
