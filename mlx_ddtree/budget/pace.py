"""How fast the machine is at present, all things alike: another program, heat, a neighbour on the same processor.

What costs are compared for is their ratio, and a machine that is slower for a second does not change that.  So timings
are divided by the present pace before anything is learned from them.  A round alone cannot tell a slow machine from a
size that costs more than the table says; a step of plain decoding behind it can: where the pace has moved without one,
some are taken (ledger.py: check), the pace follows them, and what remains of a round's time is the table's to learn.
"""

from __future__ import annotations

import math

WEIGHT = 0.2
"""Of the newest timing; of a process's first ones more, because the table may come from another time.  What follows
faster takes for a change of pace what is a wrong entry, in a row of rounds of one kind."""
SETTLED = 5
"""Timings of a process before it is known how fast the machine is."""
MOST = 3.0
"""What takes so many times longer than it should was disturbed by something that is over."""
MOVED = 1.2
"""By how much the pace changes before what is known of plain decoding is in doubt."""


class Pace:
    """A running mean, in logarithms, of what things take over what they should.

    factor: seconds that things take now over what they usually take.
    """

    def __init__(self) -> None:
        self._log = 0.0
        self._timings = 0
        self._log_at_step = 0.0

    @property
    def factor(self) -> float:
        return math.exp(self._log)

    def saw(self, ratio: float) -> None:
        """Count what something took over what the table says of it."""
        log = math.log(min(max(ratio, 1 / MOST), MOST))
        self._timings += 1
        self._log += max(WEIGHT, 1 / (self._timings + 1)) * (log - self._log)

    def saw_step(self, ratio: float) -> None:
        """Count a step of plain decoding."""
        self.saw(ratio)
        self._log_at_step = self._log

    @property
    def settled(self) -> bool:
        """Whether so much was timed that what is left of a timing is not the pace's."""
        return self._timings >= SETTLED

    @property
    def moved(self) -> bool:
        """Whether rounds have changed it since plain decoding was last timed."""
        return abs(self._log - self._log_at_step) > math.log(MOVED)
