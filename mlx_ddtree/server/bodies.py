"""Request bodies: how they are read, and how much of them a server holds at once."""

from __future__ import annotations

import asyncio

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.settings import RequestLimits

LINGER_SECONDS = 1.0


class BodyRoom:
    """The memory that the bodies of unanswered requests share.

    used: bytes that are taken, small bodies not counted.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self.limits = limits
        self.used = 0


class HeldBody:
    """One request's part of the room, from its first byte until the request has ended."""

    def __init__(self, room: BodyRoom) -> None:
        self.room = room
        self._bytes = 0
        self._counted = 0

    def grow(self, size: int) -> None:
        """Take `size` more bytes.  Raises ApiError 413 if this body, 429 if all bodies together become too large."""
        limits = self.room.limits
        self._bytes += size
        if self._bytes > limits.body_bytes:
            raise too_large(limits)
        more = max(self._bytes - limits.small_bytes, 0) - self._counted
        if self.room.used + more > limits.unfinished_bytes:
            message = "the server holds as many large requests as it may; try again in 5 s"
            raise ApiError(429, message, code="bodies_full", headers={"Retry-After": "5"})
        self._counted += more
        self.room.used += more

    def release(self) -> None:
        self.room.used -= self._counted
        self._counted = 0


def too_large(limits: RequestLimits) -> ApiError:
    return ApiError(413, f"the body is larger than {limits.body_bytes} bytes", code="body_too_large")


async def read_body(request: Request, held: HeldBody) -> bytes:
    """A request's JSON text.

    Browsers ask before they send JSON to another site, and just send other things: only JSON is read.
    Raises ApiError 408, 413, 415 and 429, and ClientDisconnect.
    """
    limits = held.room.limits
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "send JSON, with 'Content-Type: application/json'")
    if int(request.headers.get("content-length", "0")) > limits.body_bytes:  # digits alone pass HTTP's own checks
        raise too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                held.grow(len(piece))
                body += piece
    except TimeoutError:
        message = f"the body did not come within {limits.body_seconds:g} s"
        raise ApiError(408, message, code="body_timeout") from None
    return bytes(body)


class LingeringClose:
    """Reads on for a moment after a refusal that came before the request's body did.

    A connection that is closed while its client still sends is reset, and a reset may take the answer away from a
    client that has not read it yet.  Such an answer says `Connection: close`, goes out at once, and what comes
    afterwards is thrown away until the client stops or LINGER_SECONDS are over.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        coming = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        refused = False

        async def receive_noting_end() -> Message:
            nonlocal coming
            message = await receive()
            coming = coming and bool(message.get("more_body", False))
            return message

        async def send_then_linger(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and coming:
                refused = True
                MutableHeaders(scope=message)["connection"] = "close"
            if not refused or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            with anyio.move_on_after(LINGER_SECONDS):
                while coming:
                    await receive_noting_end()
            await send({"type": "http.response.body", "body": b""})

        await self.app(scope, receive_noting_end, send_then_linger)
