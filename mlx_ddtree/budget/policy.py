"""Which round comes next and how large its tree is: expected tokens against measured seconds.

A long text is a chain of rounds, so the right goal is tokens in all over seconds in all, not the best
ratio of each round by itself.  With `rate`, the tokens a second that decoding reaches at present, a
round of n nodes is worth

    value(n) = 1 + Phi(n) - rate * seconds(n)

(the fractional-programming form of theta(n) = (1 + Phi(n)) / seconds(n), Dinkelbach 1967: both have the
same optimum in the long run).  All sizes are scanned, because the cost is a staircase; n = 0 is
always among them.  When plain decoding is faster the drafter rests, and is tried again after
growing pauses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.calibration import Trust
from mlx_ddtree.budget.cost import CostTable

MEMORY = 1 / 12
"""Weight of the newest round in the running rates."""
FIRST_PAUSE, LONGEST_PAUSE = 8, 128
"""Tokens of plain decoding before the drafter is tried again."""
RELIEF = 0.9
"""What a drafted round that pays leaves of the next pause."""
FIRST_PROBES, PROBES = 4, 1
"""Drafted rounds before a pause may begin: of a text, and after a pause."""
EXPECTED_SHARE = 0.25
"""Of an expected acceptance in what is learned from a round."""
FULL_BLOCK_EVERY = 48
"""Drafted rounds, of which one uses the whole block, so that its deeper slots stay known."""
MOST_COPIES = 24
"""Rounds in a row without the drafter because a copy seemed to do."""
SMALLEST_CAP = 8


class Choice(NamedTuple):
    """nodes: of the tree.  expected: accepted nodes, calibrated.  value: see above, in tokens."""

    nodes: int
    expected: float
    value: float


@dataclass
class Rate:
    """Decaying means of tokens and seconds of the drafted rounds."""

    tokens: float = 0.0
    seconds: float = 0.0
    rounds: int = 0

    def add(self, tokens: float, seconds: float) -> None:
        weight = max(MEMORY, 1 / (self.rounds + 1))
        self.tokens += weight * (tokens - self.tokens)
        self.seconds += weight * (seconds - self.seconds)
        self.rounds += 1

    @property
    def per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Survival:
    """P(accepted >= d | accepted >= d - 1) for depths d = 1.., from decaying counts.

    hits, trials: (L,).  prior: counts of other texts, worth a few rounds together.
    """

    PSEUDO_TRIALS = 3.0
    UNKNOWN = 0.85

    def __init__(self, length: int, decay: float, prior: Survival | None = None) -> None:
        self.hits, self.trials = np.zeros(length), np.zeros(length)
        self.decay, self.prior = decay, prior

    def rates(self, trust: float = 1.0) -> NDArray[np.float64]:
        """(L,)  trust: a factor on what other texts say."""
        prior = min(trust, 1.0) * (self.prior.rates() if self.prior else self.UNKNOWN)
        return (self.hits + self.PSEUDO_TRIALS * prior) / (self.trials + self.PSEUDO_TRIALS)

    def reached(self, trust: float = 1.0) -> NDArray[np.float64]:
        """(L,) expected accepted nodes if the draft ends at depth 1, 2, ..."""
        return np.cumsum(np.cumprod(self.rates(trust)))

    def add(self, reached: NDArray[np.floating]) -> None:
        """reached: (tried depths + 1,) P(accepted >= d), d = 0..; 0 and 1 where it was seen, not predicted."""
        tried = len(reached) - 1
        for counts, new in ((self.hits, reached[1:]), (self.trials, reached[:-1])):
            counts[:tried] = self.decay * counts[:tried] + new
        if self.prior:
            self.prior.add(reached)

    def fade(self) -> None:
        """The text has moved on: what comes next counts more than what was."""
        self.hits /= 2
        self.trials /= 2


class BudgetPolicy:
    """One sequence's decisions; `cost` and `known` are shared by all sequences of a pair.

    known: survival of drafts in other texts.
    block_sizes: those with a measured draft, ascending; the last is the drafter's own.
    block_size: fixes it.
    """

    def __init__(self, cost: CostTable, block_size: int | None = None, known: Survival | None = None) -> None:
        self.cost = cost
        self.block_sizes = [block_size] if block_size else sorted(cost.draft)
        self.drafted, self.trust = Rate(), Trust()
        length = len(known.hits) if known else self.block_sizes[-1] - 1
        self.survival = Survival(length, 1 - MEMORY, known)
        self._verify_seconds = 0.0  # of drafted rounds lately
        self._plain_rate = 1 / cost.step(cost.contexts[0])
        self._pause, self._probes_left = float(FIRST_PAUSE), FIRST_PROBES
        self._largest = 0.0
        self._drafts = self._copied = self._interrupted = 0

    def rate(self, context: int) -> float:
        """Tokens a second at present: of drafted rounds, or of plain decoding if that is faster."""
        return max(self.drafted.per_second, 1 / self.cost.step(context))

    def pause(self, context: int) -> int:
        """Tokens to decode plainly before the next draft; 0 drafts now."""
        if self._interrupted:
            left, self._interrupted = self._interrupted, 0
            return left
        self._plain_rate = 1 / self.cost.step(context)
        if self._probes_left > 0:
            return 0
        if self._rates(context).max() * self.cost.step(context) >= 1:
            return 0
        pause, self._pause = int(self._pause), min(2 * self._pause, LONGEST_PAUSE)
        self._probes_left = PROBES
        self.survival.fade()
        return pause

    def interrupted(self, left: int) -> None:
        """A pause ended for a copy; the next one is what was left of it."""
        self._interrupted = left

    def _rates(self, context: int) -> NDArray[np.float64]:
        """Expected tokens a second of drafted rounds, by block size."""
        reached = self.survival.reached(self.trust.factor).tolist()
        others = (self._verify_seconds or float(self.cost.verification(context)[0])) + self.cost.round
        return np.array([(1 + reached[size - 2]) / (self.cost.drafting(size) + others) for size in self.block_sizes])

    def skips_drafter(self, expected_first: float, context: int) -> bool:
        """Whether a copied continuation whose first token is right with this probability does alone.

        The drafter could add what it is worth on average in the rounds where the copy fails at
        once, and costs its time in all of them.
        """
        if self.drafted.rounds == 0 or self._copied >= MOST_COPIES:
            return False  # what the drafter adds has to be seen, now and then anew
        average = max(self.drafted.tokens - 1, 1.0)
        draft = self.cost.drafting(self.block_sizes[-1])
        return self.rate(context) * draft > (1 - expected_first) * average

    def beats_plain(self, choice: Choice, context: int) -> bool:
        """Whether a round without a draft is worth more than a step of plain decoding."""
        rate = self.rate(context)
        return choice.value - rate * self.cost.round > 1 - rate * self.cost.step(context)

    def saw_copy(self) -> None:
        """A round went without the drafter."""
        self._copied += 1

    def next_block_size(self, context: int) -> int:
        """The block with the best expected rate, from the survival of its depths so far."""
        if self._drafts % FULL_BLOCK_EVERY == FULL_BLOCK_EVERY - 1:
            return self.block_sizes[-1]
        return self.block_sizes[int(np.argmax(self._rates(context)))]

    def largest(self, context: int) -> int:
        """Nodes worth building: twice the recent choices, so that easy rounds stay cheap to plan."""
        wanted = max(2 * self._largest, SMALLEST_CAP)
        return next((n - 1 for n in self.cost.rows if n - 1 >= wanted), self.cost.rows[-1] - 1)

    def choose(self, expected: NDArray[np.floating], context: int, chain_nodes: int = 0) -> Choice:
        """The tree's size, given Phi: (N,) expected accepted nodes by number of nodes, from 0.

        Up to `chain_nodes` the tree has no branches.  A verification is padded to the next measured size, so only
        those, the end of the chain and the whole tree can win.
        """
        rows = np.array(self.cost.rows)
        ends = {*(rows - 1).tolist(), chain_nodes, len(expected) - 1}
        nodes = np.array(sorted(n for n in ends if n < min(len(expected), rows[-1])))
        place = np.searchsorted(rows, nodes + 1)
        tree, chain = (self.cost.verification(context, kind)[place] for kind in (False, True))
        values = 1 + expected[nodes] - self.rate(context) * np.where(nodes <= chain_nodes, chain, tree)
        best = int(np.argmax(values))
        choice = Choice(int(nodes[best]), float(expected[nodes[best]]), float(values[best]))
        self._largest = max(choice.nodes, self._largest * (1 - MEMORY))
        return choice

    def saw_draft(
        self, accepted: int, reached: NDArray[np.floating], block_size: int, seconds: float, verify_seconds: float
    ) -> None:
        """A drafted round's outcome.

        reached: (block_size or more,) P(accepted >= d) for d = 0.. as it was expected.  What came is learned with
        some of what was expected: less noise, and a calibration that is off is noticed soon.
        """
        seen = np.arange(block_size) <= accepted
        self.survival.add(seen + EXPECTED_SHARE * (reached[:block_size] - seen))
        self.drafted.add(1 + accepted + EXPECTED_SHARE * (float(reached[1:].sum()) - accepted), seconds)
        self._verify_seconds += (verify_seconds - self._verify_seconds) * max(MEMORY, 1 / self.drafted.rounds)
        self._drafts, self._copied = self._drafts + 1, 0
        paid = 1 + accepted > self._plain_rate * seconds  # then one more, whatever the counts say
        self._probes_left = max(int(paid), self._probes_left - 1)
        if paid:
            self._pause = max(RELIEF * self._pause, FIRST_PAUSE)
