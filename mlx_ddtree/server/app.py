"""The routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mlx_ddtree.pflash.compress import OFF, PrefillCompression
from mlx_ddtree.server.access import middleware
from mlx_ddtree.server.calls import Call, HungUp
from mlx_ddtree.server.engine import Engine, Piece, Progress
from mlx_ddtree.server.errors import ApiError, internal_error
from mlx_ddtree.server.json_response import AsciiJson, error_response, server_sent
from mlx_ddtree.server.metrics import OUTCOMES
from mlx_ddtree.server.prompt import prepare
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.replies import ChatReply, Reply, TextReply
from mlx_ddtree.server.requests import ChatRequest, Defaults, TextRequest, bias, compression, decoding_options, parse

MAX_BODY = 16 * 2**20
KEEP_ALIVE = 5.0
"""Seconds without a word after which a stream gets a comment, so that nobody takes it for dead."""
ALIASES = ("default_model", "default")


@dataclass
class Settings:
    """How to serve.

    request_seconds: after which a request is given up; None: never.
    template: options of the chat template.
    compression, kv_keep_ratio: of long prompts, unless a request says otherwise.
    """

    model: str
    host: str = "127.0.0.1"
    api_key: str | None = None
    origins: list[str] = field(default_factory=list)
    defaults: Defaults = field(default_factory=Defaults)
    template: Mapping[str, Any] = field(default_factory=dict)
    request_seconds: float | None = None
    compression: PrefillCompression = OFF
    kv_keep_ratio: float | None = None


class Service:
    """The handlers."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.created = int(time())
        self._preparing = anyio.CapacityLimiter(1)  # tokenizers are not made for several threads

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, ChatRequest, "chat")

    async def completion(self, request: Request) -> Response:
        return await self._answer(request, TextRequest, "completions")

    async def models(self, request: Request) -> Response:
        return AsciiJson({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return AsciiJson(self._model())

    async def health(self, request: Request) -> Response:
        alive = self.engine.alive
        body = {"status": "ok" if alive else "unavailable", "waiting": self.engine.waiting}
        return AsciiJson(body, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request, kind: type[Any], endpoint: str) -> Response:
        metrics, start = self.engine.metrics, monotonic()

        def ended(outcome: str) -> None:
            metrics.count(endpoint, outcome)
            metrics.duration.observe(monotonic() - start)

        call = Call(self.engine, self.settings.request_seconds, ended)
        try:
            asked, body = parse(kind, await read_body(request))
            self._check_model(asked.model)
            reply = await self._submit(call, asked, body)
            if asked.stream:
                await call.peek(KEEP_ALIVE)
                return EventStream(call, self._chunks(call, reply, start))
            return await self._whole(request, call, reply, start)
        except ApiError as error:
            call.end(OUTCOMES.get(error.status, "error"))
            raise
        except ClientDisconnect:
            call.end("hung_up")
            return Response(status_code=499)  # nobody reads it
        except asyncio.CancelledError:
            call.end("stopping")
            raise
        except Exception:
            call.end("error")
            raise

    async def _submit(self, call: Call, asked: Any, body: dict[str, Any]) -> Reply:
        pair = self.engine.pair
        if pair is None:
            raise ApiError(503, "the model is not loaded", code="stopping")
        added = bias(asked, pair.target.args.vocab_size)
        settings = self.settings
        shorter = compression(asked, settings.compression)
        prepared = await anyio.to_thread.run_sync(
            prepare, pair, asked, body, settings.template, shorter, limiter=self._preparing
        )
        kept = settings.kv_keep_ratio if asked.kv_keep_ratio is None else asked.kv_keep_ratio
        long = {"compression": prepared.compression, "kv_keep_ratio": kept}
        named = asked.model or settings.model, asked.top is not None, asked.wants_usage
        reply: Reply
        if isinstance(asked, ChatRequest):
            reply = ChatReply(*named, AnswerReader(pair.tokenizer, prepared.state, prepared.tools))
        else:
            reply = TextReply(*named)
        call.submit(prepared.ids, lambda: decoding_options(asked, settings.defaults, added) | long, asked.top)
        return reply

    async def _whole(self, request: Request, call: Call, reply: Reply, start: float) -> Response:
        watcher = asyncio.create_task(hung_up(request))
        watcher.add_done_callback(lambda task: None if task.cancelled() else call.hang_up())
        try:
            async for event in call.events():
                if isinstance(event, Piece):
                    start = self._first(start)
                    reply.add(event)
        except HungUp:
            call.end("hung_up")
            return Response(status_code=499)  # nobody reads it
        finally:
            watcher.cancel()
        call.end("ok")
        return AsciiJson(reply.whole())

    async def _chunks(self, call: Call, reply: Reply, start: float) -> AsyncIterator[str]:
        try:
            for chunk in reply.opening():
                yield server_sent(chunk)
            async for event in call.events(KEEP_ALIVE):
                if isinstance(event, Piece):
                    start = self._first(start)
                    for chunk in reply.add(event):
                        yield server_sent(chunk)
                elif isinstance(event, Progress):
                    yield f": prompt {event.done}/{event.total}\n\n"
                else:
                    yield ": still here\n\n"
            yield "data: [DONE]\n\n"
            call.end("ok")
        except ApiError as error:
            call.end(OUTCOMES.get(error.status, "error"))
            yield server_sent(error.body())

    def _first(self, start: float) -> float:
        """Take the time of the first piece; infinity marks it as taken."""
        if start != float("inf"):
            self.engine.metrics.first_token.observe(monotonic() - start)
        return float("inf")

    def _model(self) -> dict[str, Any]:
        return {"id": self.settings.model, "object": "model", "created": self.created, "owned_by": "mlx_ddtree"}

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self.settings.model, *ALIASES):
            message = f"model: {name!r} is not served here; this server has {self.settings.model!r}"
            raise ApiError(404, message, param="model", code="model_not_found")


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


async def read_body(request: Request) -> bytes:
    """Raises ApiError 413 and 415.  Browsers ask before they send JSON to another site; other things they just send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "send JSON, with 'Content-Type: application/json'")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise ApiError(413, f"the body is larger than {MAX_BODY} bytes")
    return bytes(body)


async def hung_up(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(engine: Engine, settings: Settings) -> Starlette:
    service = Service(engine, settings)
    routes = [
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.completion, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/v1/models/{name:path}", service.model),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error_response(error)

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return error_response(ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    async def failed(request: Request, error: Exception) -> Response:
        return error_response(internal_error())

    return Starlette(
        routes=routes,
        middleware=middleware(settings.host, settings.api_key, settings.origins),
        exception_handlers={ApiError: refused, HTTPException: no_route, Exception: failed},
    )
