"""The handlers: from a request to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic, time
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from mlx_ddtree.pair import Pair
from mlx_ddtree.server.answers import Answer, EventStream, all_events, hung_up, said_of
from mlx_ddtree.server.bodies import BodyRoom, HeldBody, read_body
from mlx_ddtree.server.calls import Call, HungUp
from mlx_ddtree.server.dialects import Asked, Beginning, Dialect
from mlx_ddtree.server.engine import Engine
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import Piece
from mlx_ddtree.server.json_response import AsciiJson
from mlx_ddtree.server.metrics import OUTCOMES
from mlx_ddtree.server.options import compression_of, decoding_options_of, logit_bias_of
from mlx_ddtree.server.prompt import Prepared, prepare, prepare_texts
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.reasonings import Reasonings
from mlx_ddtree.server.requests import TextRequest
from mlx_ddtree.server.settings import ServerSettings

KEEP_ALIVE = 2.0
"""Seconds without a word after which a stream gets a comment: nobody takes it for dead, and who has gone is noticed."""
ALIASES = ("default_model", "default")
"""Names that any server's model answers to."""
Handler = Callable[[Request], Awaitable[Response]]


class Service:
    """The handlers of one server; they run in its event loop."""

    def __init__(self, engine: Engine, settings: ServerSettings) -> None:
        self.engine = engine
        self.settings = settings
        self.created = int(time())
        self._reasonings = Reasonings()
        self._bodies = BodyRoom(settings.limits)
        self._preparing = anyio.CapacityLimiter(1)  # tokenizers are not made for several threads

    def answer(self, dialect: Dialect) -> Handler:
        """The handler of an API's requests."""

        async def handler(request: Request) -> Response:
            return await self._answer(request, dialect)

        return handler

    def count_tokens(self, dialect: Dialect) -> Handler:
        """The handler of requests for the tokens of a prompt that is not answered."""

        async def handler(request: Request) -> Response:
            return await self._count_tokens(request, dialect)

        return handler

    async def _count_tokens(self, request: Request, dialect: Dialect) -> Response:
        assert dialect.counted is not None
        held = HeldBody(self._bodies)
        outcome = "error"
        try:
            raw = await read_body(request, held)
            _, prompts = await self._prepared(dialect, raw, must_fit=False)
            outcome = "ok"
            return AsciiJson(dialect.counted(len(prompts[0].ids)))
        except ApiError as error:
            outcome = OUTCOMES.get(error.status, "error")
            raise
        except ClientDisconnect:
            outcome = "hung_up"
            return Response(status_code=499)  # nobody reads it
        finally:
            held.release()
            self.engine.metrics.count("count_tokens", outcome)

    async def stored(self, request: Request) -> Response:
        """The handler of requests for an earlier answer."""
        message = f"{request.url.path}: answers are not kept here; send the whole conversation in input"
        raise ApiError(404, message, code="not_stored")

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

    async def _answer(self, request: Request, dialect: Dialect) -> Response:
        """Read, submit and answer one request; whatever happens, its call ends with an outcome."""
        metrics = self.engine.metrics
        start = monotonic()
        held = HeldBody(self._bodies)

        def ended(outcome: str) -> None:
            held.release()
            metrics.count(dialect.name, outcome)
            metrics.duration.observe(monotonic() - start)

        call = Call(self.engine, self.settings.request_seconds, ended, self.settings.limits.unread_bytes)
        try:
            raw = await read_body(request, held)
            asked, answers = await self._submit(call, dialect, raw)
            del raw  # a waiting request keeps what it needs, not all that was sent
            if asked.request.stream:
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

    async def _submit(self, call: Call, dialect: Dialect, raw: bytes) -> tuple[Asked, list[Answer]]:
        """Make a body a request, prepare its prompts and options, and queue the first of its answers.

        Raises ApiError.

        Bodies are taken one at a time, beside the event loop: a large one takes seconds, and many times its size.
        """
        asked, prompts = await self._prepared(dialect, raw)
        request, pair = asked.request, self._pair
        logit_bias = logit_bias_of(request, pair.target.args.vocab_size)
        kept = self.settings.kv_keep_ratio if request.kv_keep_ratio is None else request.kv_keep_ratio

        def options(prepared: Prepared, reader: AnswerReader, number: int) -> dict[str, Any]:
            made = decoding_options_of(request, self.settings.defaults, logit_bias, number)
            ends = [] if reader.stop is None else [reader.stop]
            more = {"compression": prepared.compression, "kv_keep_ratio": kept, "grammar": prepared.grammar}
            return made | more | {"stop": [*made["stop"], *ends]}

        count = request.n or 1
        answers: list[Answer] = []
        for prepared in prompts:
            for number in range(count):
                reader = self._reader(request, prepared)
                model = request.model or self.settings.model
                begin = Beginning(model, asked, reader, self._remember(prepared), len(prepared.ids))
                is_last = len(answers) + 1 == len(prompts) * count
                reply = dialect.reply(begin).behind([answer.reply for answer in answers], is_last, number)
                submit = partial(call.submit, prepared.ids, partial(options, prepared, reader, number), request.top)
                answers.append(Answer(reply, submit))
        answers[0].submit()
        return asked, answers

    @property
    def _pair(self) -> Pair:
        if self.engine.pair is None:
            raise ApiError(503, "the model is not loaded", code="stopping")
        return self.engine.pair

    async def _prepared(self, dialect: Dialect, raw: bytes, must_fit: bool = True) -> tuple[Asked, list[Prepared]]:
        """A body as a request and its prompts, made in a thread of their own."""
        work = partial(self._prepare, self._pair, dialect, raw, must_fit)
        return await anyio.to_thread.run_sync(work, limiter=self._preparing)

    def _prepare(self, pair: Pair, dialect: Dialect, raw: bytes, must_fit: bool) -> tuple[Asked, list[Prepared]]:
        try:
            asked = dialect.read(raw)
            request = asked.request
            if not (request.model or "").startswith(dialect.foreign):
                self._check_model(request.model)
            compression = compression_of(request, self.settings.compression)
            if isinstance(request, TextRequest):
                return asked, prepare_texts(pair, request, compression)
            template = self.settings.template
            return asked, [prepare(pair, request, asked.body, template, compression, self._reasonings, must_fit)]
        except ApiError as error:
            raise dialect.renamed(error) from None

    def _reader(self, request: Any, prepared: Prepared) -> AnswerReader:
        one_call = bool(prepared.tools) and request.one_call
        return AnswerReader(self._pair.tokenizer, prepared.state, prepared.tools, one_call)

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
        last_sent = monotonic()
        try:
            async for reply, event in all_events(call, answers, KEEP_ALIVE):
                if isinstance(event, Piece):
                    start = self._first(start)
                texts = said_of(reply, event)
                if not texts and monotonic() - last_sent > KEEP_ALIVE:  # a long call is told when it is complete
                    texts = [reply.waiting()]
                for text in texts:
                    last_sent = monotonic()
                    yield text
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
