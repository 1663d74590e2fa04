"""Small requests that are answered while a long prompt is read: between its chunks, round by round.

A target keeps nothing between two forwards but its caches, and every answer has caches of its own.  So what both say is
what they would say one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

from mlx_ddtree.server.events import Job

SMALL = 256
"""Tokens that a request has to process at most to be answered beside another one."""


class Beside:
    """The request that is answered beside another one, one at a time.

    waiting: takes the next small request out of the queue, if there is one.
    answer: from a job to the steps of its answer.
    """

    def __init__(self, waiting: Callable[[], Job | None], answer: Callable[[Job], Iterator[None]]) -> None:
        self.job: Job | None = None
        self._waiting = waiting
        self._answer = answer
        self._steps: Iterator[None] = iter(())
        self._chunk_began = monotonic()

    def begin(self) -> None:
        """A request begins that others may be answered beside."""
        self._chunk_began = monotonic()

    def between_chunks(self) -> None:
        """Answer small requests for about as long as the last chunk took."""
        now = monotonic()
        end = now + (now - self._chunk_began)
        while self._found() and self.step() and monotonic() < end:
            pass
        self._chunk_began = monotonic()

    def step(self) -> bool:
        """Go on by a round; False where there is nothing to go on with."""
        if self.job is None:
            return False
        try:
            next(self._steps)
        except StopIteration:
            self.job = None
        return True

    def finish(self) -> None:
        """Bring what was begun to its end."""
        while self.step():
            pass

    def _found(self) -> bool:
        if self.job is None:
            self.job = self._waiting()
            if self.job is not None:
                self._steps = self._answer(self.job)
        return self.job is not None
