"""How everything here is timed: in turns, with one rule for when it is enough."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from time import perf_counter
from typing import TypeVar

WARM_UPS = 2
"""First calls that are not counted: kernels compile, memory is mapped."""
LEAST = 3
MOST = 9
"""Timings of each side, at least and at most."""
PATIENCE = 0.06
"""Seconds of each side that end its timing once there are LEAST."""

Side = TypeVar("Side", bound=Hashable)


def fastest(sides: Mapping[Side, Callable[[], object]], patience: float = PATIENCE) -> dict[Side, float]:
    """The shortest of a few calls of each side, in seconds.

    What disturbs a call makes it longer, never shorter, so the minimum says most about the machine itself.  Sides take
    turns, so that all of them meet the same machine.  Each call must wait for its own result.
    """
    times: dict[Side, list[float]] = {side: [] for side in sides}
    for _ in range(WARM_UPS):
        for run in sides.values():
            run()
    for repeat in range(MOST):
        if repeat >= LEAST and all(sum(taken) >= patience for taken in times.values()):
            break
        for side, run in sides.items():
            start = perf_counter()
            run()
            times[side].append(perf_counter() - start)
    return {side: min(taken) for side, taken in times.items()}
