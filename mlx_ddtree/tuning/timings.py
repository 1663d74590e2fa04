"""Timings that outlive an interrupted measurement: Ctrl-C keeps what was measured, and the next run goes on there."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlx_ddtree.budget import saved
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.untrusted import read_json


class Timings:
    """Seconds by what was timed; each is measured once, in this process or in one that was interrupted.

    path: of the file that keeps them; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.seconds = {} if path is None else _read(path)

    def of(self, name: str, measure: Callable[[], float]) -> float:
        """The seconds that `measure` gives, unless they are known."""
        if name not in self.seconds:
            self.seconds[name] = measure()
        return self.seconds[name]

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
