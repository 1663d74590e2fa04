"""Which round comes next and how large its tree is: expected tokens against measured seconds.

A long text is a chain of rounds, so the right goal is tokens in all over seconds in all, not the best
ratio of each round by itself.  With `rate`, the tokens a second that decoding reaches at present, a
round of n nodes is worth

    value(n) = 1 + Phi(n) - rate * seconds(n)

(the fractional-programming form of theta(n) = (1 + Phi(n)) / seconds(n), Dinkelbach 1967: both have the
same optimum in the long run).  All sizes are scanned, because the cost is a staircase; n = 0 is
always among them.  When plain decoding is faster the drafter rests; how often it is tried again, and what a round
may cost, is the ledger's to say (ledger.py).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.calibration import Trust
from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.ledger import NeverSlower
from mlx_ddtree.budget.survival import MEMORY, RoundRate, Survival

FIRST_DRAFTS = 4
"""Drafted rounds of a text before its rates mean something."""
EXPECTED_SHARE = 0.25
"""Share of the expected acceptance in what is learned from a round; the rest is what was seen.  Less noise, and
still a calibration that is off is noticed soon."""
FULL_BLOCK_EVERY = 48
"""One of this many drafted rounds uses the whole block, so that its deeper positions stay known."""
MOST_COPIES = 24
"""Rounds in a row without the drafter because a copy seemed to do."""
ENDLESS = 1 << 62
"""Tokens to decode plainly where nothing drafts: until something can be copied."""
ROUNDING = 1 + 1e-9
"""What may be paid is a sum of which parts were taken off again; the smallest round has to fit in all the same."""
SMALLEST_CAP = 8
"""Nodes that are always built, however small the trees chosen lately."""


class Choice(NamedTuple):
    """How much of a tree is verified.

    nodes: of the tree, root excluded.  expected: accepted nodes, calibrated.  value: that of this file's first lines,
        in tokens.  seconds: that the verification is likely to take.
    """

    nodes: int
    expected: float
    value: float
    seconds: float = 0.0


def _value(choice: Choice) -> float:
    return choice.value


class BudgetPolicy:
    """One sequence's decisions; `cost` and `known` are shared by all sequences of a pair.

    known: survival of drafts in other texts.
    block_sizes: those with a measured draft, ascending; the last is the drafter's own.  Empty without a drafter.
    block_size: the only one to use; None chooses among the measured ones.
    drafted, trust, survival: what this text's rounds have taught.
    """

    def __init__(self, cost: CostTable, block_size: int | None = None, known: Survival | None = None) -> None:
        self.cost = cost
        self.block_sizes = [block_size] if block_size else sorted(cost.draft)
        self.drafted = RoundRate()
        self.trust = Trust()
        length = len(known.hits) if known else max(self.block_sizes, default=1) - 1
        self.survival = Survival(length, 1 - MEMORY, known)
        self._verify_seconds = 0.0  # mean of the drafted rounds lately
        self.never_slower = NeverSlower(cost, min(self.block_sizes, default=0))
        self._paid = False  # the last drafted round: whether it was faster than plain decoding
        self._largest_choice = 0.0  # of the trees chosen lately
        self._drafts = 0
        self._copies_in_a_row = 0
        self._copied_until = 0  # tokens in the cache after the last copied round
        self._faded_at = 0  # drafted rounds when the drafter last began to rest

    def rate(self, context: int) -> float:
        """Tokens a second at present: of drafted rounds, or of plain decoding if that is faster.

        Without a drafter, that of copied rounds and of the plain steps between them.
        """
        return max(self.drafted.per_second, 1 / self.cost.step(context))

    def affordable(self, context: int) -> float:
        """Seconds that draft and verification of a round may take although nothing of it is accepted."""
        return self.never_slower.affordable(context) - self.cost.round

    def affordable_copy(self, context: int, chance: float) -> float:
        """Seconds that the verification of a copy may take; chance: that its first token is right."""
        return self.never_slower.affordable_copy(context, chance) - self.cost.round

    def pause(self, context: int) -> int:
        """Tokens to decode plainly before the next draft; 0 drafts now."""
        if not self.block_sizes:
            self.never_slower.rest(context)
            return ENDLESS
        # 1. Until the next draft can be paid.
        pays = self._pays(context)
        tokens = self.never_slower.pause(context, pays)
        if not pays and self.drafted.rounds != self._faded_at:
            self.survival.fade()
            self._faded_at = self.drafted.rounds
        # 2. A few where it is not sure how fast plain decoding is.
        if tokens == 0 and self.drafted.rounds >= FIRST_DRAFTS:
            return self.never_slower.check(context, self.drafted.per_second * self.cost.step(context))
        return tokens

    def _pays(self, context: int) -> bool:
        """Whether the next drafted round is likely to be faster than plain decoding.

        The first ones are tried whatever the counts say, and one that was faster is followed by another.
        """
        if self._paid or self.drafted.rounds < FIRST_DRAFTS:
            return True
        return max(self._drafted_rates(context)) * self.cost.step(context) >= 1

    def _drafted_rates(self, context: int) -> list[float]:
        """(block sizes,) expected tokens a second of drafted rounds."""
        expected = self.survival.reached(self.trust.factor)
        verify_seconds = self._verify_seconds or self.cost.verifying(0, context)
        other_seconds = verify_seconds + self.cost.round
        rates = []
        for size in self.block_sizes:
            deepest = size - 2  # the block's first token is the root, and arrays begin at depth 1
            rates.append((1 + expected[deepest]) / (self.cost.drafting(size) + other_seconds))
        return rates

    def may_skip_drafter(self) -> bool:
        """Whether a copy may do alone: not before the drafter was seen, nor for too long."""
        return self.drafted.rounds > 0 and self._copies_in_a_row < MOST_COPIES

    def beats_others(self, choice: Choice, context: int) -> bool:
        """Whether a round without a draft is worth more than what else could be done.

        Drafted rounds, by whose rate its seconds are counted, are worth nothing on average; where nothing drafts, it is
        weighed against a step of plain decoding.
        """
        if self.block_sizes:
            return choice.value > self.rate(context) * self.cost.round
        return self.gain(choice, context, restart=False) > 0

    def gain(self, choice: Choice, context: int, restart: bool = True) -> float:
        """Tokens by which a round without a draft is worth more than a step of plain decoding.

        restart: whether plain decoding is interrupted for it and has to begin again.
        """
        rate = self.rate(context)
        lost = self.cost.round - self.cost.step(context)
        if restart:
            lost += self.never_slower.restart(context)
        return choice.value - 1 - rate * lost

    def saw_copy(self, tokens: int, seconds: float, context: int) -> None:
        """Count a round that went without the drafter.  context: tokens in the cache before it."""
        self._copies_in_a_row += 1
        if self.block_sizes:
            return
        plain = max(context - self._copied_until, 0) if self.drafted.rounds else 0
        self.drafted.add(plain + tokens, plain * self.cost.step(context) + seconds)
        self._copied_until = context + tokens

    def next_block_size(self, context: int) -> int:
        """The block with the best expected rate, from the survival of its depths so far."""
        # 1. Those that can be paid, with one of their tokens verified; the shortest always.
        draft_seconds = self.affordable(context) - self.never_slower.verifying_one(context)
        count = max(sum(self.cost.drafting(size) <= draft_seconds for size in self.block_sizes), 1)
        # 2. The best of them; now and then the longest.
        if self._drafts % FULL_BLOCK_EVERY == FULL_BLOCK_EVERY - 1:
            return self.block_sizes[count - 1]
        rates = self._drafted_rates(context)[:count]
        return self.block_sizes[rates.index(max(rates))]

    def largest(self) -> int:
        """Nodes worth building: twice the recent choices, so that easy rounds stay cheap to plan."""
        wanted = max(2 * self._largest_choice, SMALLEST_CAP)
        for rows in self.cost.rows:
            if rows - 1 >= wanted:
                return rows - 1
        return self.cost.rows[-1] - 1

    def choose(
        self, expected: NDArray[np.floating], context: int, chain_nodes: int = 0, affordable: float = math.inf
    ) -> Choice:
        """The tree's size of the largest value, given Phi: (N,) expected accepted nodes by number of nodes, from 0.

        Up to `chain_nodes` the tree has no branches.  A verification is padded to the next measured size, so only
        those, the end of the chain and the whole tree can win; but for the root alone, none that takes longer than
        `affordable` seconds.
        """
        # 1. The sizes that can win.  So few numbers are compared faster as Python's than as arrays.
        rows = self.cost.rows
        accepted = expected.tolist()
        limit = min(len(expected), rows[-1])
        ends = {size - 1 for size in rows} | {chain_nodes, len(expected) - 1}
        nodes = sorted(size for size in ends if size < limit)
        # 2. The seconds of each, padded to a measured size, and its value.
        chain_seconds = self.cost.verification(context, chain=True)
        tree_seconds = chain_seconds
        if chain_nodes < nodes[-1]:
            tree_seconds = self.cost.verification(context, chain=False)
        rate = self.rate(context)
        options = []
        for size in nodes:
            seconds = chain_seconds if size <= chain_nodes else tree_seconds
            taken = seconds[bisect_left(rows, size + 1)]
            if size == 0 or taken <= affordable * ROUNDING:
                options.append(Choice(size, accepted[size], 1 + accepted[size] - rate * taken, taken))
        # 3. The best; of equal ones the smallest.
        choice = max(options, key=_value)
        self._largest_choice = max(choice.nodes, self._largest_choice * (1 - MEMORY))
        return choice

    def saw_draft(
        self, accepted: int, reached: NDArray[np.floating], block_size: int, seconds: float, verify_seconds: float
    ) -> None:
        """Learn from a drafted round's outcome.

        accepted: nodes.  reached: (block_size or more,) P(accepted >= d) for d = 0.. as it was expected; some of it
            enters what is learned (EXPECTED_SHARE).
        """
        seen = np.arange(block_size) <= accepted
        self.survival.add((seen + EXPECTED_SHARE * (reached[:block_size] - seen)).tolist())
        expected = float(reached[1:].sum())
        self.drafted.add(1 + accepted + EXPECTED_SHARE * (expected - accepted), seconds)
        weight = max(MEMORY, 1 / self.drafted.rounds)
        self._verify_seconds += weight * (verify_seconds - self._verify_seconds)
        self._drafts += 1

    def saw_unread(self, accepted: int, block_size: int, seconds: float) -> None:
        """Learn from a round whose chain was verified unread."""
        self.survival.add_seen(accepted, block_size)
        self.drafted.add(1 + accepted, seconds)

    def saw_round(self, tokens: int, seconds: float, promised: float, rows: int, context: int, drafted: bool) -> None:
        """Count a round of any kind in the text's account (Ledger.add)."""
        self.never_slower.saw(tokens, seconds, promised, rows, context, drafted)
        if drafted:
            self._copies_in_a_row = 0
            self._paid = tokens * self.cost.step(context) > seconds
