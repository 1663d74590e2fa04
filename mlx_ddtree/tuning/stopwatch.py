"""How everything here is timed: in turns, with one rule for when it is enough."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from math import inf
from time import perf_counter
from typing import TypeVar

WARM_UPS = 2
"""First calls that are not counted: kernels compile, memory is mapped."""
LEAST = 3
MOST = 9
"""Timings of each side, at least and at most."""
PATIENCE = 0.06
"""Seconds of each side that end its timing once there are LEAST."""
SLOW = 0.08
"""Seconds of a call that says enough by itself: what disturbs it is small, and more of them cost a user's time."""
LIMIT = 4.0
"""Seconds after which no call is begun: a compiler or a driver that stalls once is not asked again."""

Side = TypeVar("Side", bound=Hashable)


def now() -> float:
    """Seconds of a clock that only goes forward."""
    return perf_counter()


def fastest(sides: Mapping[Side, Callable[[], object]], patience: float = PATIENCE) -> dict[Side, float]:
    """The shortest of a few calls of each side, in seconds; infinity for a side that was never called.

    What disturbs a call makes it longer, never shorter, so the minimum says most about the machine itself.  Sides take
    turns, so that all of them meet the same machine.  Each call must wait for its own result.
    """
    begin = now()
    times: dict[Side, list[float]] = {side: [] for side in sides}
    while not _say_enough(list(times.values()), patience):
        for side, run in sides.items():
            start = now()
            if start - begin > LIMIT:
                return _shortest(times)
            run()
            times[side].append(now() - start)
    return _shortest(times)


def _say_enough(times: list[list[float]], patience: float) -> bool:
    """Whether these calls of each side will do."""
    slow = all(min(taken, default=0.0) >= SLOW for taken in times)
    counted = [taken[WARM_UPS:] for taken in times]
    patient = all(len(taken) >= LEAST and sum(taken) >= patience for taken in counted)
    return slow or patient or all(len(taken) >= MOST for taken in counted)


def _shortest(times: dict[Side, list[float]]) -> dict[Side, float]:
    return {side: min(taken[WARM_UPS:] or taken, default=inf) for side, taken in times.items()}
