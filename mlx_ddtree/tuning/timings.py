"""What was measured of a pair, one number at a time: within a time limit, and kept when it is over.

A first use must not wait for all that can be known of a large model.  So every measurement has a name, is taken once,
and is left out when time is up; the next use goes on with those that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_ddtree.budget import saved
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.tuning import stopwatch
from mlx_ddtree.untrusted import read_json


class OutOfTime(Exception):
    """A measurement is missing and there is no time left to take it."""


class Timings:
    """Numbers by what was measured, most of them seconds; all above 0.

    path: of the file that keeps them; None keeps nothing.
    seconds: that may be spent from now on; None: any.
    known: what is known already, beside what the file says.
    """

    def __init__(
        self, path: Path | None, seconds: float | None = None, known: Mapping[str, float] | None = None
    ) -> None:
        self.path = path
        self.seconds = ({} if path is None else _read(path)) | dict(known or {})
        self.end = None if seconds is None else stopwatch.now() + seconds
        self._news = False  # whether anything was measured by this object
        self.taken: Callable[[], None] = lambda: None

    def of(self, name: str, measure: Callable[[], float]) -> float:
        """The number that `measure` gives, unless it is known.  Raises OutOfTime."""
        if name not in self.seconds:
            self.need_time()
            self.note(name, measure())
        return self.seconds[name]

    def note(self, name: str, number: float) -> None:
        """Take note of a number; `taken` hears of it."""
        self._news = True
        self.seconds[name] = max(number, 1e-9)
        self.taken()

    def need_time(self, expected: float = 0.0) -> None:
        """Raise OutOfTime if no time is left.

        expected: seconds that will be needed.  What is longer than all the time there is comes first in some use.
        """
        if self.end is None:
            return
        left = self.end - stopwatch.now()
        if left <= 0 or (self._news and left < expected):
            raise OutOfTime

    @contextmanager
    def without_limit(self) -> Iterator[None]:
        """Measure in the block whatever the time: nothing can begin without it."""
        end = self.end
        self.end = None
        try:
            yield
        finally:
            self.end = end

    def keep(self) -> None:
        """Write what was measured so far.  A read-only disk is no reason to stop."""
        if self.path is None or not self.seconds:
            return
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as file:
                file.write(json.dumps(self.seconds).encode())

    def forget(self) -> None:
        """Remove the file: the measurement is complete."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, float]:
    """What an interrupted measurement left; nothing where there is no file, or a damaged one."""
    if not path.exists():
        return {}
    try:
        return {name: saved.positive(seconds) for name, seconds in read_json(path).items()}
    except (MlxDdtreeError, OSError, TypeError, ValueError):
        return {}
