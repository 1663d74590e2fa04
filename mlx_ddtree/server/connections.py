"""One client's connection: uvicorn's HTTP/1.1 with deadlines, and answers for clients that half-close.

uvicorn waits without end for a request's headers and body and for a client that does not read its answer.  Here every
wait for a client has a deadline, so that what unfinished requests hold is bounded in size and in time.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.settings import RequestLimits

PROBE_SECONDS = 0.5
"""How often a client that sends no more is asked whether it still listens."""
GRACE_SECONDS = 5.0
"""How long the application may take to answer a late body itself before the connection is cut."""


class BoundedConnection(H11Protocol):
    """uvicorn's connection within limits."""

    def __init__(self, *arguments: Any, limits: RequestLimits, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.limits = limits
        self._awaited: object = None
        self._request_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            message = f"the server has {self.limits.connections} connections open already; try again later"
            self.refuse(ApiError(503, message, code="too_many_connections"))
            return
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._request_timer, self._reader_timer, self._probe_timer):
            _cancel(timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_request()
        self._watch_reader()

    # Requests that do not come to their end.

    def _watch_request(self) -> None:
        """Give what is awaited of the client its time: the headers of a request, or the body of this one."""
        awaited = self._what_is_awaited()
        if awaited == self._awaited:
            return
        self._awaited = awaited
        _cancel(self._request_timer)
        self._request_timer = None
        if awaited == "headers":
            self._request_timer = self.loop.call_later(self.limits.header_seconds, self._headers_late)
        elif awaited is not None:
            seconds = self.limits.body_seconds + GRACE_SECONDS
            self._request_timer = self.loop.call_later(seconds, self.transport.abort)

    def _what_is_awaited(self) -> object:
        """ "headers", the cycle whose body is awaited, or None.  An idle connection is uvicorn's own to close."""
        if self.transport.is_closing() or self.timeout_keep_alive_task is not None:
            return None
        if self.conn.their_state is h11.IDLE:
            return "headers"
        if self.conn.their_state is h11.SEND_BODY:
            return self.cycle
        return None

    def _headers_late(self) -> None:
        message = f"the request's headers did not come within {self.limits.header_seconds:g} s"
        self.refuse(ApiError(408, message, code="headers_timeout"))

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in OpenAI's format; uvicorn calls this."""
        self.refuse(ApiError(400, msg, code="invalid_http"))

    def refuse(self, error: ApiError) -> None:
        """Answer for the application, and close."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error.body()).encode()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            headers.append(("connection", "close"))
            reason = HTTPStatus(error.status).phrase.encode()
            head = h11.Response(status_code=error.status, headers=headers, reason=reason)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    # Clients that do not read.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reader_timer)
        self._reader_timer = None

    def _watch_reader(self) -> None:
        """Look after a while whether the client has taken any of what waits for it; nothing is added meanwhile."""
        _cancel(self._reader_timer)
        waiting = self.transport.get_write_buffer_size()
        self._reader_timer = None
        if waiting:
            self._reader_timer = self.loop.call_later(self.limits.send_seconds, self._check_reader, waiting)

    def _check_reader(self, waiting: int) -> None:
        if self.transport.get_write_buffer_size() == waiting:
            self.transport.abort()
        else:
            self._watch_reader()

    # Clients that close their side once they have asked.

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own protocols may return it
        """Keep the connection for an answer that is still owed; without one it is closed.

        The end of a client's sending side looks the same whether it will read on or has gone.  What is written tells:
        a machine answers what nobody reads with a reset.  So an answer that has not begun is announced by
        `100 Continue`, which clients of HTTP/1.1 pass over, until it begins or the connection is reset.
        """
        if not self._owes_answer():
            return False
        self.cycle.keep_alive = False
        self._probe()
        return True

    def _owes_answer(self) -> bool:
        if self.cycle is None or self.cycle.response_complete or self.scope["http_version"] != "1.1":
            return False
        return self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    def _probe(self) -> None:
        _cancel(self._probe_timer)
        if self.transport.is_closing() or self.cycle.response_started:
            return
        self.transport.write(
            self.conn.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""
        )
        self._probe_timer = self.loop.call_later(PROBE_SECONDS, self._probe)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
