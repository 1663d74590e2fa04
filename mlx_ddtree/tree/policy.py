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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.tree.cost import CostTable

MEMORY = 1 / 12
"""Weight of the newest round in the running rates."""
FIRST_PAUSE, LONGEST_PAUSE = 4, 128
"""Tokens of plain decoding before the drafter is tried again."""
PROBES = 2
"""Drafted rounds before a pause may begin (again)."""
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


class BudgetPolicy:
    """One sequence's decisions; `cost` is shared by all sequences of a pair.

    block_sizes: those with a measured draft, ascending; the last is the drafter's own.
    block_size: fixes it.
    """

    def __init__(self, cost: CostTable, block_size: int | None = None) -> None:
        self.cost = cost
        self.block_sizes = [block_size] if block_size else sorted(cost.draft)
        self.drafted = Rate()
        self._survival = np.full(self.block_sizes[-1] - 1, 0.8)  # P(accepted >= d | accepted >= d - 1), d = 1..
        self._pause, self._probes_left = FIRST_PAUSE, PROBES
        self._largest = 0.0
        self._drafts = self._copied = 0

    def rate(self, context: int) -> float:
        """Tokens a second at present: of drafted rounds, or of plain decoding if that is faster."""
        return max(self.drafted.per_second, 1 / self.cost.step(context))

    def pause(self, context: int) -> int:
        """Tokens to decode plainly before the next draft; 0 drafts now."""
        if self._probes_left > 0:
            return 0
        if self.drafted.per_second * self.cost.step(context) >= 1:
            self._pause = FIRST_PAUSE
            return 0
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self._probes_left = PROBES
        self.drafted.rounds = 1  # the text has moved on: the probes count as much as all before them
        return pause

    def skips_drafter(self, expected_first: float, context: int) -> bool:
        """Whether a copied continuation whose first token is right with this probability does alone.

        The drafter could add what it is worth on average in the rounds where the copy fails at
        once, and costs its time in all of them.
        """
        if self.drafted.rounds == 0 or self._copied >= MOST_COPIES:
            return False  # what the drafter adds has to be seen, now and then anew
        average = max(self.drafted.tokens - 1, 1.0)
        draft = self.cost.drafting(self.block_sizes[-1])
        skips = self.rate(context) * draft > (1 - expected_first) * average
        self._copied += skips
        return skips

    def next_block_size(self, context: int) -> int:
        """The block with the best expected rate, from the survival of its depths so far."""
        if len(self.block_sizes) == 1 or self._drafts % FULL_BLOCK_EVERY == 0:
            return self.block_sizes[-1]
        reached = np.cumsum(np.cumprod(self._survival))
        rate = self.rate(context)
        values = [reached[size - 2] - rate * self.cost.drafting(size) for size in self.block_sizes]
        return self.block_sizes[int(np.argmax(values))]

    def largest(self, context: int) -> int:
        """Nodes worth building: twice the recent choices, so that easy rounds stay cheap to plan."""
        wanted = max(2 * self._largest, SMALLEST_CAP)
        return next((n - 1 for n in self.cost.rows if n - 1 >= wanted), self.cost.rows[-1] - 1)

    def choose(self, expected: NDArray[np.floating], context: int) -> Choice:
        """The tree's size, given Phi: (N,) expected accepted nodes by number of nodes, from 0.

        A verification is padded to the next measured size, so only those and the whole tree can win.
        """
        sizes = np.array(self.cost.rows) - 1
        reachable = np.searchsorted(sizes, len(expected) - 1) + 1  # the last may be padded
        nodes = np.minimum(sizes[:reachable], len(expected) - 1)
        values = 1 + expected[nodes] - self.rate(context) * self.cost.verification(context)[: len(nodes)]
        best = int(np.argmax(values))
        choice = Choice(int(nodes[best]), float(expected[nodes[best]]), float(values[best]))
        self._largest = max(choice.nodes, self._largest * (1 - MEMORY))
        return choice

    def saw_draft(self, accepted: int, expected: float, block_size: int, seconds: float) -> None:
        """A drafted round's outcome.  The rate takes the mean of what was expected and what came: half the
        noise, and a calibration that is off is noticed."""
        self.drafted.add(1 + (accepted + expected) / 2, seconds)
        self._drafts, self._copied = self._drafts + 1, 0
        self._probes_left = max(0, self._probes_left - 1)
        tried = min(accepted + 1, block_size - 1)
        hits = np.arange(tried) < accepted
        self._survival[:tried] += MEMORY / 2 * (hits - self._survival[:tried])


def expected_of_chain(probabilities: Sequence[float]) -> NDArray[np.float64]:
    """(n + 1,) Phi of a chain, from 0 nodes, of the tokens' conditional probabilities."""
    return np.concatenate([[0.0], np.cumsum(np.cumprod(probabilities))])
