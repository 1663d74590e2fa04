"""How fast drafted rounds have been lately, and how deep drafts are accepted: running means of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

MEMORY = 1 / 12
"""Weight of the newest round in the running means of one text: about a dozen rounds are remembered."""


@dataclass
class RoundRate:
    """Decaying means of the tokens and seconds of drafted rounds."""

    tokens: float = 0.0
    seconds: float = 0.0
    rounds: int = 0

    def add(self, tokens: float, seconds: float) -> None:
        """Count a round; the first ones are averaged evenly."""
        self.rounds += 1
        self.tokens += self.newest * (tokens - self.tokens)
        self.seconds += self.newest * (seconds - self.seconds)

    @property
    def newest(self) -> float:
        """Weight of the newest round in the means."""
        return max(MEMORY, 1 / self.rounds)

    @property
    def per_second(self) -> float:
        """Tokens a second; 0 before the first round."""
        if not self.seconds:
            return 0.0
        return self.tokens / self.seconds


class Survival:
    """P(accepted >= d | accepted >= d - 1) for depths d = 1.., from decaying counts.

    hits, trials: (L,) by depth; Python's numbers, because so few of them are faster than arrays and every round waits
        for them.  decay: what a round leaves of them.  prior: counts of other texts, which also hear of every round of
        this one.  pseudo_trials: a depth's counts outweigh the prior once it was tried more often than this.
    """

    UNKNOWN = 0.85
    """The rate of a depth that no text has tried: a good drafter's, so that it is tried."""

    def __init__(self, length: int, decay: float, prior: Survival | None = None, *, pseudo_trials: float = 3.0) -> None:
        self.hits = [0.0] * length
        self.trials = [0.0] * length
        self.decay = decay
        self.prior = prior
        self.pseudo_trials = pseudo_trials

    def rates(self, trust: float = 1.0) -> list[float]:
        """(L,) by depth.  trust: a factor on what other texts say; above 1 it counts as 1."""
        prior = [self.UNKNOWN] * len(self.hits) if self.prior is None else self.prior.rates()
        pseudo_trials = self.pseudo_trials
        pseudo_hits = min(trust, 1.0) * pseudo_trials
        return [
            (hits + pseudo_hits * rate) / (trials + pseudo_trials)
            for hits, trials, rate in zip(self.hits, self.trials, prior, strict=True)
        ]

    def reached(self, trust: float = 1.0) -> list[float]:
        """(L,) expected accepted nodes if the draft ends at depth 1, 2, ..."""
        return [*accumulate(accumulate(self.rates(trust), mul))]

    def add(self, reached: Sequence[float]) -> None:
        """Count a round.

        reached: (tried depths + 1,) P(accepted >= d), d = 0..; 0 and 1 where it was seen, not predicted.
        """
        decay = self.decay
        for depth in range(len(reached) - 1):
            self.hits[depth] = decay * self.hits[depth] + reached[depth + 1]
            self.trials[depth] = decay * self.trials[depth] + reached[depth]
        if self.prior:
            self.prior.add(reached)

    def add_seen(self, accepted: int, block_size: int) -> None:
        """Count a round of which `accepted` of the `block_size` - 1 drafted tokens were accepted."""
        self.add([float(depth <= accepted) for depth in range(block_size)])

    def fade(self) -> None:
        """Halve the counts: the text has moved on, and what comes next counts more than what was."""
        self.hits = [hits / 2 for hits in self.hits]
        self.trials = [trials / 2 for trials in self.trials]
