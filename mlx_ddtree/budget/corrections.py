"""What rounds say of seconds that were measured once: a factor for each size, also for those that no round has used.

A size that this process has not used is as far off as its neighbours that often were: what makes all of them slower, or
made the measuring slow, is most of what is wrong with a table.  Otherwise the sizes in use would heal, the others keep
a bad moment's seconds, and what is dear by mistake would never be tried again.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

RATE = 0.1
"""Weight of one new timing of a size against what was known of it: an entry that was measured in a busy moment heals
within tens of visits."""
TELLING = 8
"""Rounds of a size before it says anything of others."""
MOST = 2.0
"""A timing counts as so many times what was expected at most."""


class Corrections:
    """Factors on measured seconds, all 1 before the first round.

    sizes: ascending; whose seconds were measured.
    factors: one for each of them, on straight lines between those that rounds have used.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.factors = [1.0] * len(self.sizes)
        self._used: dict[int, float] = {}  # place in `sizes`: its factor
        self._visits: dict[int, int] = {}

    @property
    def any_used(self) -> bool:
        """Whether a round has used one of the sizes."""
        return bool(self._used)

    def applied(self, measured: Sequence[float]) -> list[float]:
        """Seconds by `sizes`, corrected.

        measured: seconds by `sizes`.  No size that no round has used takes longer than a larger one that is known well:
        more rows cost no less, so what says so was disturbed.
        """
        corrected = [seconds * factor for seconds, factor in zip(measured, self.factors, strict=True)]
        least = math.inf
        for place in reversed(range(len(corrected))):
            if self._visits.get(place, 0) >= TELLING:
                least = min(least, corrected[place])
            elif place not in self._used:
                corrected[place] = min(corrected[place], least)
        return corrected

    def factor(self, size: int) -> float:
        """The factor of a size; of one between two of `sizes`, which is padded, that of the larger."""
        return self.factors[self._place(size)]

    def refine(self, size: int, expected: float, ratio: float, quickly: bool = False) -> None:
        """Move a size's factor towards what a round says.

        expected: the factor by which the round's time was expected.  ratio: its time over the expected one.
        quickly: whether the first timings count most, because what was known is of another process.
        """
        place = self._place(size)
        visits = self._visits.get(place, 0)
        weight = max(RATE, 1 / (visits + 2)) if quickly else RATE
        self._used[place] = expected * (1 + weight * (min(ratio, MOST) - 1))
        self._visits[place] = visits + 1
        self._spread()

    def _place(self, size: int) -> int:
        return min(bisect_left(self.sizes, size), len(self.sizes) - 1)

    def _spread(self) -> None:
        """Give the sizes that no round has used what their neighbours say, once these are known well: straight lines
        from one to the next, and beyond the last of them what it says."""
        telling = sorted(place for place, visits in self._visits.items() if visits >= TELLING)
        factors = [1.0] * len(self.sizes)
        if telling:
            factors = np.interp(range(len(self.sizes)), telling, [self._used[place] for place in telling]).tolist()
        for place, factor in self._used.items():
            factors[place] = factor
        self.factors = factors
