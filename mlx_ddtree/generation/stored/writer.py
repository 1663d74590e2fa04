"""A thread that writes files while the one that owns MLX goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Full, Queue
from threading import Thread
from time import sleep

LOG = logging.getLogger(__name__)
WAITING = 2
"""Pieces of work that may wait: what they hold stays in memory until it is written."""


class Writer:
    """Does what it is told, one thing after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._work: Queue[Callable[[], None] | None] = Queue(WAITING)
        self._thread = Thread(target=self._run, name="mlx_ddtree writing", daemon=True)
        self._thread.start()

    def has_room(self, seconds: float) -> bool:
        """Whether something more may wait, now or after so many seconds."""
        if self._work.full():
            sleep(seconds)
        return not self._work.full()

    def do(self, work: Callable[[], None]) -> None:
        """Have something done; waits where there is no room."""
        self._work.put(work)

    def close(self, seconds: float) -> None:
        """Wait so long for what is to be done; what is not done then is left."""
        try:
            self._work.put(None, timeout=seconds)
        except Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                LOG.exception("a prompt cache was not written")
