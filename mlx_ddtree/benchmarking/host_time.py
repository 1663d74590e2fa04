"""Host time, measured from outside: processor time of the calling thread, and time in which the device has no work.

Two quantities that are easily taken for one another:

* **main**: processor time of the thread that decodes.  It counts whether or not the device works meanwhile; only code
  that is not run removes it.
* **exposed**: time in which all that was queued is done and the next work has not come, also between two operations
  of one graph that is being handed over.  Hiding host code behind the device's work removes it, even if that code
  still runs.

MLX's CPU backend works in a thread a stream.  Linux keeps, for every thread, how long it has run and how long it was
ready to run and had to wait for a core; the rest of the time a stream's thread has nothing to do.  On a GPU nothing
like that can be read from outside, and exposed time is unknown.

The file needs MLX and the standard library alone, so studies can load it beside another version of the package.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

TASKS = Path("/proc/self/task")
PROBE = 1 << 20
"""Numbers that a stream works on to show which thread is its own: about a millisecond."""
NANOSECONDS = 1e-9
THREAD_CLOCK = 0b110
"""The bits of a clock's number that say: of one thread, as the scheduler counts."""


@dataclass(frozen=True)
class HostTime:
    """Seconds of a stretch of decoding.

    wall: of the clock.
    main: of this thread's processor time.
    exposed: in which the device had nothing to do; None where that cannot be read.
    """

    wall: float
    main: float
    exposed: float | None

    def as_dict(self) -> dict[str, float]:
        """'main' in seconds, and 'exposed' where it is known."""
        known = {"main": self.main}
        return known if self.exposed is None else known | {"exposed": self.exposed}

    def __sub__(self, other: HostTime) -> HostTime:
        exposed = None
        if self.exposed is not None and other.exposed is not None:
            exposed = max(self.exposed - other.exposed, 0.0)
        return HostTime(self.wall - other.wall, self.main - other.main, exposed)


class HostClock:
    """Readings of wall, main and exposed time; their differences are what counts.

    threads: the streams' threads; None where they cannot be watched.
    """

    def __init__(self, streams: Sequence[Any]) -> None:
        """Find the threads of the streams that decoding uses, by letting them work a millisecond each."""
        self.threads: set[int] | None = None
        if mx.default_device() == mx.cpu and _waited(threading.get_native_id()) is not None:
            self.threads = {_thread_of(stream) for stream in streams}

    def now(self) -> HostTime:
        """A reading; only differences of two mean something."""
        wall = time.perf_counter()
        main = time.thread_time()
        if self.threads is None:
            return HostTime(wall, main, None)
        return HostTime(wall, main, wall - sum(_occupied(thread) for thread in self.threads))


def _thread_of(stream: Any) -> int:
    """The thread that works for a stream: the one that this makes work most."""
    others = {thread.native_id for thread in threading.enumerate()}
    numbers = mx.zeros((PROBE,))
    mx.eval(mx.exp(numbers, stream=stream))  # a thread that did not exist before has now been started
    before = {thread: _occupied(thread) for thread in _native_threads() - others}
    mx.eval(mx.exp(numbers, stream=stream))
    return max(before, key=lambda thread: _occupied(thread) - before[thread])


def _native_threads() -> set[int]:
    return {int(name) for name in os.listdir(TASKS)}


def _occupied(thread: int) -> float:
    """Seconds in which a thread ran, or was ready to; exact at every moment, unlike schedstat's own first number."""
    return ran(thread) + (_waited(thread) or 0.0)


def ran(thread: int) -> float:
    """Processor time of one of this process's threads, in seconds (Linux; man 3 pthread_getcpuclockid)."""
    return time.clock_gettime((~thread << 3) | THREAD_CLOCK)


def _waited(thread: int) -> float | None:
    """Seconds in which a thread was ready to run and another one ran; None where the system does not tell."""
    try:
        _, ready, _ = (TASKS / str(thread) / "schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return int(ready) * NANOSECONDS
