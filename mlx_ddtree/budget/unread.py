"""When a block's best path is verified before the host has read it.

A tree has to be read: the host builds it and cuts it to the nodes that are worth their rows.  The whole chain of a
draft's best tokens has not: it goes from the drafter to the target on the device.  That saves a wait and all that the
host does in it, and it costs the rows that reading would have left out, or the branches that it would have added.

Both are judged on the same drafts, those that were read: tokens over seconds of what was chosen of them, and of their
whole chains as if nobody had looked.  Few drafts of a text are read, so what reading was worth beside chains in other
texts counts as some more of them.  How long a chain is worth its rows is seen on all drafts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.survival import MEMORY, RoundRate, Survival

FIRST_READ = 2
"""Drafts of a text that are read before it says anything: the first one is cut as if the text were plain decoding's, so
it speaks for long blocks.  Where another text has compared both, one is read."""
READ_EVERY = 32
"""At most so many chains in a row stay unread: what trees are worth has to be seen, now and then anew."""
TRY_EVERY = 8
"""Drafts that are read, of any text, before a chain that is nearly worth as much is not: its time has to be seen."""
NEARLY = 0.1
"""Share of a chain's rate by which reading's may seem to be higher, and the chain is still tried."""
OTHER_TEXTS = 3.0
"""Drafts that were read as which the comparison of other texts counts."""
OTHERS_CHAINS = 1.5
"""Trials of a depth as which other texts' chains count."""
NEWEST = 1 / 48
"""Weight of the newest draft in the comparison of all texts."""


@dataclass
class Comparison:
    """What all texts have shown of chains and of reading.

    survival: of chains, by depth.
    advantage: log of reading's tokens a second over those of the best chain, a running mean.
    compared: drafts that it comes from.
    since_a_chain: drafts that were read since one was not.
    """

    survival: Survival
    advantage: float = 0.0
    compared: int = 0
    since_a_chain: int = 0

    def add(self, advantage: float) -> None:
        """Count a draft that was read, of a text of which some more were."""
        weight = max(NEWEST, 1 / (self.compared + 1))
        self.advantage += weight * (advantage - self.advantage)
        self.compared += 1


class UnreadChains:
    """One text's comparison of whole chains with what is chosen of the drafts that are read.

    block_sizes: tokens of the blocks that may be drafted, ascending.
    known: the comparison of all texts, which hears of every draft of this one.
    read: tokens and seconds of the drafts that were read lately, the tokens as they were expected.
    survival: of a chain's depths.
    """

    def __init__(self, cost: CostTable, block_sizes: list[int], known: Comparison) -> None:
        self.cost = cost
        self.block_sizes = [size for size in block_sizes if size <= cost.rows[-1]]
        self.known = known
        self.read = RoundRate()
        self._unread_tokens = [0.0] * len(self.block_sizes)  # of the same drafts, had their chains stayed unread
        self.survival = Survival(len(known.survival.hits), 1 - MEMORY, known.survival, pseudo_trials=OTHERS_CHAINS)
        self._in_a_row = 0

    def compare(self, reached: Sequence[float], tokens: float, seconds: float, context: int) -> None:
        """Take note of a draft that was read.

        reached: (block_size,) probability that at least d = 0.. tokens of its best path are accepted.
        tokens: expected of what was chosen instead.  seconds: that its round took, at the machine's usual pace.
        """
        self._in_a_row = 0
        self.known.since_a_chain += 1
        self.survival.add(reached)
        self.read.add(tokens, seconds)
        tokens_by_length = [*accumulate(reached)]
        for place, size in enumerate(self.block_sizes):
            unread = tokens_by_length[min(size, len(reached)) - 1]
            self._unread_tokens[place] += self.read.newest * (unread - self._unread_tokens[place])
        if self.block_sizes and self.read.rounds >= FIRST_READ:
            self.known.add(self._advantage(self._seconds(context)))

    def next_block(self, context: int, trust: float = 1.0, affordable: float = math.inf) -> int:
        """Tokens of the block whose best path is verified unread now, root included; 0 where reading is worth more.

        trust: how much better than others this text's drafts are (calibration.Trust).
        affordable: seconds that draft and verification may take.
        """
        first = 1 if self.known.compared else FIRST_READ
        if self._in_a_row >= READ_EVERY or self.read.rounds < first or not self.block_sizes:
            return 0
        # 1. Whether reading is worth more, by the drafts that were read.
        seconds_by_block = self._seconds(context)
        if not self._reading_is_worth_less(seconds_by_block):
            return 0
        # 2. The block that is worth most, by all drafts.
        accepted = self.survival.reached(trust)
        best = 0
        best_rate = 0.0
        for size, seconds in zip(self.block_sizes, seconds_by_block, strict=True):
            rate = (1 + accepted[size - 2]) / (seconds + self.cost.round)
            if rate > best_rate and seconds <= affordable:
                best = size
                best_rate = rate
        return best

    def expected(self, block_size: int) -> float:
        """Tokens of a block's best path that are likely to be accepted."""
        return self.survival.reached()[block_size - 2]  # the root is no draft, and the list begins at depth 1

    def saw(self, accepted: int, block_size: int) -> None:
        """Learn from a chain that was verified unread."""
        self._in_a_row += 1
        self.known.since_a_chain = 0
        self.survival.add_seen(accepted, block_size)

    def _seconds(self, context: int) -> list[float]:
        """(block sizes,) of draft and verification."""
        return self.cost.unread_chains(self.block_sizes, context)

    def _reading_is_worth_less(self, seconds_by_block: Sequence[float]) -> bool:
        """Whether it is, in this text and others; or nearly so, where it is time to see again what chains take."""
        others = OTHER_TEXTS if self.known.compared else 0.0
        own = min(self.read.rounds, round(1 / MEMORY))
        advantage = (own * self._advantage(seconds_by_block) + others * self.known.advantage) / (own + others)
        return advantage < (NEARLY if self.known.since_a_chain >= TRY_EVERY else 0.0)

    def _advantage(self, seconds_by_block: Sequence[float]) -> float:
        """Log of the tokens a second of this text's drafts as they were read, over those of the best block's chains.

        seconds_by_block: (block sizes,) of draft and verification, unread.
        """
        of_chains = zip(self._unread_tokens, seconds_by_block, strict=True)
        best = max(tokens / (seconds + self.cost.round) for tokens, seconds in of_chains)
        return math.log(self.read.per_second / best)
