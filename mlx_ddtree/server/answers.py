"""A request's answers, one after the other, and how they go out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mlx_ddtree.server.calls import Call
from mlx_ddtree.server.events import Piece, PromptProgress
from mlx_ddtree.server.replies import Reply


@dataclass(frozen=True)
class Answer:
    """One of a request's answers: what it is told in, and how it is asked for."""

    reply: Reply
    submit: Callable[[], None]


class Opening:
    """An answer is about to begin."""


async def all_events(
    call: Call, answers: list[Answer], patience: float | None = None
) -> AsyncIterator[tuple[Reply, PromptProgress | Piece | Opening | None]]:
    """The events of all answers, one answer after the other; the first one has been asked for."""
    for place, answer in enumerate(answers):
        if place:
            answer.submit()
        yield answer.reply, Opening()
        async for event in call.events(patience):
            yield answer.reply, event


def said_of(reply: Reply, event: PromptProgress | Piece | Opening | None) -> list[str]:
    """What a stream gets when an event comes."""
    if isinstance(event, Opening):
        return [reply.sent(chunk) for chunk in reply.opening()]
    if isinstance(event, Piece):
        return [reply.sent(chunk) for chunk in reply.add(event)]
    if isinstance(event, PromptProgress):
        return [reply.waiting(event.done, event.total)]
    return [reply.waiting()]


class EventStream(StreamingResponse):
    """Server-sent events; however the sending ends, so does the call."""

    def __init__(self, call: Call, chunks: AsyncIterator[str]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, media_type="text/event-stream", headers=headers)
        self.call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.call.end("hung_up")


async def hung_up(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
