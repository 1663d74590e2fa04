"""The handlers: from a request to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mlx_ddtree.pair import Pair
from mlx_ddtree.server.bodies import BodyRoom, HeldBody, read_body
from mlx_ddtree.server.calls import Call, HungUp
from mlx_ddtree.server.engine import Engine
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import Piece, PromptProgress
from mlx_ddtree.server.json_response import AsciiJson
from mlx_ddtree.server.messages_reply import MessagesReply
from mlx_ddtree.server.messages_request import MessagesRequest, parse_messages
from mlx_ddtree.server.metrics import OUTCOMES
from mlx_ddtree.server.options import compression_of, decoding_options_of, logit_bias_of
from mlx_ddtree.server.parsing import parse
from mlx_ddtree.server.prompt import Prepared, prepare, prepare_texts
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.reasonings import Reasonings
from mlx_ddtree.server.replies import ChatReply, Reply, TextReply
from mlx_ddtree.server.requests import ChatRequest, TextRequest
from mlx_ddtree.server.settings import ServerSettings

KEEP_ALIVE = 2.0
"""Seconds without a word after which a stream gets a comment: nobody takes it for dead, and who has gone is noticed."""
ALIASES = ("default_model", "default")
"""Names that any server's model answers to."""
FOREIGN_NAMES = "claude"
"""What the names begin with that agents for Anthropic's API use beside the one that they were told."""


class Service:
    """The handlers of one server; they run in its event loop."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine = engine
        self.settings = settings
        self.created = int(time())
        self._reasonings = Reasonings()
        self._bodies = BodyRoom(settings.limits)
        self._preparing = anyio.CapacityLimiter(1)  # tokenizers are not made for several threads

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, ChatRequest, "chat")

    async def completion(self, request: Request) -> Response:
        return await self._answer(request, TextRequest, "completions")

    async def messages(self, request: Request) -> Response:
        return await self._answer(request, MessagesRequest, "messages")

    async def count_tokens(self, request: Request) -> Response:
        """The tokens of a prompt that is not answered."""
        held = HeldBody(self._bodies)
        outcome = "error"
        try:
            raw = await read_body(request, held)
            _, prompts = await self._prepared(MessagesRequest, raw, must_fit=False)
            outcome = "ok"
            return AsciiJson({"input_tokens": len(prompts[0].ids)})
        except ApiError as error:
            outcome = OUTCOMES.get(error.status, "error")
            raise
        except ClientDisconnect:
            outcome = "hung_up"
            return Response(status_code=499)  # nobody reads it
        finally:
            held.release()
            self.engine.metrics.count("count_tokens", outcome)

    async def models(self, request: Request) -> Response:
        return AsciiJson({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._check_model(request.path_params["name"])
        return AsciiJson(self._model())

    async def health(self, request: Request) -> Response:
        body = {"status": "ok", "waiting": self.engine.waiting, "measured": round(self.engine.measured, 2)}
        if self.engine.alive:
            return AsciiJson(body)
        return AsciiJson({**body, "status": "unavailable"}, 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self.engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request, kind: type[Any], endpoint: str) -> Response:
        """Read, submit and answer one request; whatever happens, its call ends with an outcome."""
        metrics = self.engine.metrics
        start = monotonic()
        held = HeldBody(self._bodies)

        def ended(outcome: str) -> None:
            held.release()
            metrics.count(endpoint, outcome)
            metrics.duration.observe(monotonic() - start)

        call = Call(self.engine, self.settings.request_seconds, ended, self.settings.limits.unread_bytes)
        try:
            raw = await read_body(request, held)
            asked, answers = await self._submit(call, kind, raw)
            del raw  # a waiting request keeps what it needs, not all that was sent
            if asked.stream:
                await call.peek(KEEP_ALIVE)
                return EventStream(call, self._chunks(call, answers, start))
            return await self._whole(request, call, answers, start)
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

    async def _submit(self, call: Call, kind: type[Any], raw: bytes) -> tuple[Any, list[Answer]]:
        """Make a body a request, prepare its prompts and options, and queue the first of its answers.

        Raises ApiError.

        Bodies are taken one at a time, beside the event loop: a large one takes seconds, and many times its size.
        """
        settings = self.settings
        asked, prompts = await self._prepared(kind, raw)
        pair = self._pair
        logit_bias = logit_bias_of(asked, pair.target.args.vocab_size)
        kept = settings.kv_keep_ratio if asked.kv_keep_ratio is None else asked.kv_keep_ratio

        def options(prepared: Prepared, number: int) -> dict[str, Any]:
            long_context = {"compression": prepared.compression, "kv_keep_ratio": kept}
            return decoding_options_of(asked, settings.defaults, logit_bias, number) | long_context

        count = asked.n or 1
        answers: list[Answer] = []
        for prepared in prompts:
            for number in range(count):
                reply = self._reply(pair, kind, asked, prepared)
                is_last = len(answers) + 1 == len(prompts) * count
                reply.behind([answer.reply for answer in answers], is_last, number)
                submit = partial(call.submit, prepared.ids, partial(options, prepared, number), asked.top)
                answers.append(Answer(reply, submit))
        answers[0].submit()
        return asked, answers

    @property
    def _pair(self) -> Pair:
        if self.engine.pair is None:
            raise ApiError(503, "the model is not loaded", code="stopping")
        return self.engine.pair

    async def _prepared(self, kind: type[Any], raw: bytes, must_fit: bool = True) -> tuple[Any, list[Prepared]]:
        """A body as a request and its prompts, made in a thread of their own."""
        work = partial(self._prepare, self._pair, kind, raw, must_fit)
        return await anyio.to_thread.run_sync(work, limiter=self._preparing)

    def _prepare(self, pair: Pair, kind: type[Any], raw: bytes, must_fit: bool) -> tuple[Any, list[Prepared]]:
        asked, body = parse_messages(raw) if kind is MessagesRequest else parse(kind, raw)
        if kind is not MessagesRequest or not (asked.model or "").startswith(FOREIGN_NAMES):
            self._check_model(asked.model)
        settings = self.settings
        compression = compression_of(asked, settings.compression)
        if isinstance(asked, TextRequest):
            return asked, prepare_texts(pair, asked, compression)
        return asked, [prepare(pair, asked, body, settings.template, compression, self._reasonings, must_fit)]

    def _reply(self, pair: Pair, kind: type[Any], asked: Any, prepared: Prepared) -> Reply:
        model = asked.model or self.settings.model
        with_logprobs = asked.top is not None
        if kind is MessagesRequest:
            reader = AnswerReader(pair.tokenizer, prepared.state, prepared.tools)
            thinks = (asked.chat_template_kwargs or {}).get("enable_thinking", True)
            return MessagesReply(model, reader, self._remember(prepared), len(prepared.ids), thinks)
        if isinstance(asked, ChatRequest):
            reader = AnswerReader(pair.tokenizer, prepared.state, prepared.tools)
            return ChatReply(model, with_logprobs, asked.wants_usage, reader, self._remember(prepared))
        return TextReply(model, with_logprobs, asked.wants_usage)

    def _remember(self, prepared: Prepared) -> Callable[[dict[str, Any]], None] | None:
        """What an answer's message is told to, once it is complete."""
        return None if prepared.conversation is None else partial(self._reasonings.keep, prepared.conversation)

    async def _whole(self, request: Request, call: Call, answers: list[Answer], start: float) -> Response:
        """The answers in one response, unless the client goes before they are complete."""
        watcher = asyncio.create_task(hung_up(request))
        watcher.add_done_callback(lambda task: None if task.cancelled() else call.hang_up())
        try:
            async for reply, event in all_events(call, answers):
                if isinstance(event, Piece):
                    start = self._first(start)
                    reply.add(event)
        except HungUp:
            call.end("hung_up")
            return Response(status_code=499)  # nobody reads it
        finally:
            watcher.cancel()
        call.end("ok")
        return AsciiJson(answers[-1].reply.whole())

    async def _chunks(self, call: Call, answers: list[Answer], start: float) -> AsyncIterator[str]:
        """The answers as server-sent events, an error among them if there is one."""
        reply = answers[0].reply
        try:
            async for reply, event in all_events(call, answers, KEEP_ALIVE):
                if isinstance(event, Opening):
                    for chunk in reply.opening():
                        yield reply.sent(chunk)
                elif isinstance(event, Piece):
                    start = self._first(start)
                    for chunk in reply.add(event):
                        yield reply.sent(chunk)
                elif isinstance(event, PromptProgress):
                    yield reply.waiting(event.done, event.total)
                else:
                    yield reply.waiting()
            yield reply.ending
            call.end("ok")
        except ApiError as error:
            call.end(OUTCOMES.get(error.status, "error"))
            yield reply.sent(reply.refusal(error))

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
