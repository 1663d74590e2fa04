"""How fast drafted rounds have been lately, and how deep drafts are accepted: running means of one text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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

    hits, trials: (L,) by depth.  decay: what a round leaves of them.  prior: counts of other texts, which also hear of
    every round of this one.  pseudo_trials: a depth's counts outweigh the prior once it was tried more often than this.
    """

    UNKNOWN = 0.85
    """The rate of a depth that no text has tried: a good drafter's, so that it is tried."""

    def __init__(self, length: int, decay: float, prior: Survival | None = None, *, pseudo_trials: float = 3.0) -> None:
        self.hits = np.zeros(length)
        self.trials = np.zeros(length)
        self.decay = decay
        self.prior = prior
        self.pseudo_trials = pseudo_trials

    def rates(self, trust: float = 1.0) -> NDArray[np.float64]:
        """(L,) by depth.  trust: a factor on what other texts say; above 1 it counts as 1."""
        prior = np.full(len(self.hits), self.UNKNOWN) if self.prior is None else self.prior.rates()
        prior = min(trust, 1.0) * prior
        return (self.hits + self.pseudo_trials * prior) / (self.trials + self.pseudo_trials)

    def reached(self, trust: float = 1.0) -> NDArray[np.float64]:
        """(L,) expected accepted nodes if the draft ends at depth 1, 2, ..."""
        return np.cumsum(np.cumprod(self.rates(trust)))

    def add(self, reached: NDArray[np.floating]) -> None:
        """Count a round.

        reached: (tried depths + 1,) P(accepted >= d), d = 0..; 0 and 1 where it was seen, not predicted.
        """
        tried = len(reached) - 1
        self.hits[:tried] = self.decay * self.hits[:tried] + reached[1:]
        self.trials[:tried] = self.decay * self.trials[:tried] + reached[:-1]
        if self.prior:
            self.prior.add(reached)

    def fade(self) -> None:
        """Halve the counts: the text has moved on, and what comes next counts more than what was."""
        self.hits /= 2
        self.trials /= 2
