"""A request between the event loop and the decoding thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from mlx_ddtree.server.engine import Engine
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import Event, Job, Piece, PromptProgress


class HungUp(Exception):
    """The client has gone."""


class Call:
    """One request's events, as they come.

    seconds: after which it is given up, waiting included; None: never.
    ended: told the outcome, once.
    unread_bytes: of what is said and not taken; then the answer ends there with an error.
    """

    def __init__(self, engine: Engine, seconds: float | None, ended: Callable[[str], None], unread_bytes: int) -> None:
        self._engine = engine
        self._ended = ended
        self.seconds = seconds
        self._start = monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | HungUp] = asyncio.Queue()
        self._peeked: Event | None = None
        self._job: Job | None = None
        self._most_unread = unread_bytes
        self._unread = 0
        self._outcome: str | None = None

    def submit(self, ids: list[int], options: Callable[[], dict[str, Any]], top: int | None) -> None:
        """Ask for an answer, the first or one more when the last one is complete.

        Raises ApiError if the queue takes no more.
        """
        job = Job(ids, options, top, self._send)
        self._engine.submit(job, goes_on=self._job is not None)
        self._job = job

    def hang_up(self) -> None:
        """The client has gone: whoever waits for an event is told."""
        self._events.put_nowait(HungUp())

    def end(self, outcome: str) -> None:
        """Give the job up and tell the outcome; only the first one counts."""
        if self._outcome is None:
            self._outcome = outcome
            if self._job is not None:
                self._engine.give_up(self._job)
            self._ended(outcome)

    async def peek(self, patience: float) -> None:
        """Wait up to `patience` seconds for the first event.  Raises it if it is an error."""
        with suppress(TimeoutError):
            self._peeked = await self._next(patience)

    async def events(self, patience: float | None = None) -> AsyncIterator[PromptProgress | Piece | None]:
        """All events up to an answer's last piece, and None after every `patience` seconds without one.

        Raises ApiError (a refusal, or 504 when the request's time is over) and HungUp.
        """
        while True:
            event = self._peeked
            self._peeked = None
            if event is None:
                with suppress(TimeoutError):
                    event = await self._next(patience)
            assert not isinstance(event, ApiError)
            yield event
            if isinstance(event, Piece) and event.totals is not None:
                return

    async def _next(self, patience: float | None) -> Event:
        """The next event.  Raises TimeoutError when patience ends, and the events that are errors."""
        left = None if self.seconds is None else max(self._start + self.seconds - monotonic(), 0)
        bounds = [seconds for seconds in (patience, left) if seconds is not None]
        try:
            event = await asyncio.wait_for(self._events.get(), min(bounds) if bounds else None)
        except TimeoutError:
            if left is not None and (patience is None or left <= patience):
                message = f"the answer was not complete after {self.seconds:g} s"
                raise ApiError(504, message, code="timeout") from None
            raise
        if isinstance(event, ApiError | HungUp):
            raise event
        self._unread -= _bytes_of(event)
        return event

    def _send(self, event: Event) -> None:
        """Hand an event to the event loop; the decoding thread calls this."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._arrived, event)

    def _arrived(self, event: Event) -> None:
        """Keep an event for whoever reads, unless too many wait already: nobody may have to hold an answer for ever."""
        if self._unread > self._most_unread:
            return  # the answer has ended before this
        self._unread += _bytes_of(event)
        self._events.put_nowait(event)
        if self._unread > self._most_unread and self._job is not None:
            self._engine.give_up(self._job)
            message = f"the answer was read too slowly: {self._unread} bytes of it were waiting"
            self._events.put_nowait(ApiError(499, message, code="slow_reader"))


def _bytes_of(event: Event) -> int:
    return event.nbytes if isinstance(event, Piece) else 100
