"""The thread that owns MLX, and the queue before it.

MLX's streams belong to threads, so models are loaded, used and given up in this one.  One request is decoded
at a time, in the order in which they came.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import mlx.core as mx

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.server.errors import ApiError, internal_error
from mlx_ddtree.server.logprobs import TokenLogprob, token_logprobs
from mlx_ddtree.server.metrics import Metrics
from mlx_ddtree.server.sessions import Sessions

LOG = logging.getLogger(__name__)
ROUNDS_BETWEEN_LOOKS = 32
"""Rounds after which the caches' memory is looked at while an answer grows."""


@dataclass(frozen=True)
class Progress:
    """Prompt tokens that are processed, of those that were not in a cache."""

    done: int
    total: int


@dataclass(frozen=True)
class Totals:
    """Of a finished answer.

    compression: what its prompt has lost, if anything (pflash/compress.py).
    kv_reads: what a KV budget let it read, where there is one.
    """

    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    rounds: int
    acceptance_length: float
    prompt_tps: float
    generation_tps: float
    kinds: dict[str, int]
    compression: dict[str, Any] | None = None
    kv_reads: dict[str, Any] | None = None


@dataclass(frozen=True)
class Piece:
    """What a round said.  totals: of the whole answer, once it is complete."""

    text: str
    logprobs: list[TokenLogprob]
    totals: Totals | None


Event = Progress | Piece | ApiError


@dataclass(eq=False)
class Job:
    """A request as the thread sees it.

    options: makes the keyword arguments of `stream_generate`.
    top: see `Sampling.top`.
    send: hands an event to whoever asked; may be called from any thread.
    """

    ids: list[int]
    options: Callable[[], dict[str, Any]]
    top: int | None
    send: Callable[[Event], None]
    given_up: threading.Event = field(default_factory=threading.Event)


class _GivenUp(Exception):
    """Nobody waits for this answer any more."""


class Engine:
    """Answers jobs.

    load: makes the pair.  decoding: method, tree_budget, ... for `stream_generate`.
    queue_size: jobs that may wait.
    """

    def __init__(
        self,
        load: Callable[[], Pair],
        decoding: Mapping[str, Any],
        *,
        queue_size: int,
        cache_size: int,
        cache_bytes: int,
    ) -> None:
        self._load, self._decoding, self.queue_size = load, dict(decoding), queue_size
        self._cache_bounds = cache_size, cache_bytes
        self.metrics = Metrics()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._ready = threading.Event()
        self._load_error: Exception | None = None
        self._recent_seconds = 1.0
        self._thread = threading.Thread(target=self._work, name="mlx_ddtree decoding", daemon=True)
        self.pair: Pair | None = None
        self.metrics.waiting.set_function(lambda: len(self._waiting))
        self.metrics.running.set_function(lambda: int(self._running is not None))

    def start(self) -> Pair:
        """Load, and wait until requests can be answered.  Raises what loading raises."""
        self._thread.start()
        self._ready.wait()
        if self._load_error is not None:
            raise self._load_error
        assert self.pair is not None
        return self.pair

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and self._ready.is_set() and not self._stopping

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a job.  Raises ApiError 429 if the queue is full, 503 if no answer can be expected."""
        with self._changed:
            if not self.alive:
                raise stopping()
            if len(self._waiting) >= self.queue_size and (self._running is not None or self._waiting):
                seconds = math.ceil(min(max(self._recent_seconds, 1), 60))
                message = f"{len(self._waiting)} requests are waiting already; try again in {seconds} s"
                raise ApiError(429, message, code="queue_full", headers={"Retry-After": str(seconds)})
            self._waiting.append(job)
            self._changed.notify()

    def give_up(self, job: Job) -> None:
        """Nobody waits for it: it leaves the queue, or its decoding ends with the round."""
        job.given_up.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def drain(self) -> None:
        """From now on nothing is begun; what runs goes on."""
        with self._changed:
            self._stopping = True
            jobs, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for job in jobs:
            job.send(stopping())

    def cut(self) -> None:
        """End what runs, with its round."""
        if (job := self._running) is not None:
            job.given_up.set()
            job.send(stopping())

    def stop(self, seconds: float = 30.0) -> None:
        """End what runs, give up the models and end the thread."""
        self.drain()
        self.cut()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _lost(self, reason: str) -> None:
        """A machine that the target stands on is gone, and the process is about to end (distributed/watch.py)."""
        self.drain()
        if (job := self._running) is not None:
            job.send(ApiError(503, reason, code="machine_lost"))

    def _work(self) -> None:
        try:
            self._prepare()
        except Exception as error:
            self._load_error = error
        self._ready.set()
        try:
            while self._load_error is None and (job := self._next()) is not None:
                self._answer(job)
        except BaseException:
            LOG.exception("the decoding thread ended")
            self.drain()
            if (running := self._running) is not None:
                running.send(internal_error())
        finally:
            self.pair = None
            if self._load_error is None:
                del self._sessions
            gc.collect()
            mx.synchronize()
            mx.clear_streams()  # else the process may abort when it ends

    def _prepare(self) -> None:
        pair = self._load()
        pair.target.when_lost(self._lost)
        for _ in stream_generate(pair, [0, 0], 2, **self._decoding):  # measures the pair, compiles its kernels
            pass
        self._sessions = Sessions(pair, *self._cache_bounds)
        self.pair = pair

    def _next(self) -> Job | None:
        with self._changed:
            self._running = None
            while not self._waiting:
                if self._stopping:
                    return None
                self._changed.wait()
            self._running = self._waiting.popleft()
            return self._running

    def _answer(self, job: Job) -> None:
        started = perf_counter()
        try:
            self._decode(job)
        except _GivenUp:
            pass
        except MlxDdtreeError as error:
            job.send(ApiError(400, str(error)))
        except Exception:
            LOG.exception("a request failed")
            self._sessions.drop_all()  # after an error that nobody foresaw nothing is trusted
            job.send(internal_error())
        self._sessions.trim()
        self._report_caches()
        self._recent_seconds += 0.2 * (perf_counter() - started - self._recent_seconds)

    def _decode(self, job: Job) -> None:
        if job.given_up.is_set():
            return
        session = self._sessions.take(job.ids)

        def progress(done: int, total: int) -> None:
            if job.given_up.is_set():
                raise _GivenUp
            self._sessions.make_room()
            job.send(Progress(done, total))

        options = {**self._decoding, **job.options(), "prompt_progress_callback": progress}
        last: GenerationResponse | None = None
        try:
            stream: Any = session.stream(job.ids, **options)
            with closing(stream):
                for last in stream:
                    if job.given_up.is_set():
                        raise _GivenUp
                    job.send(self._piece(job, session.reused, last))
                    if last.rounds % ROUNDS_BETWEEN_LOOKS == 0:
                        self._sessions.make_room()
        finally:
            self._count(len(job.ids), session.reused, last)

    def _piece(self, job: Job, cached: int, response: GenerationResponse) -> Piece:
        assert self.pair is not None
        tokenizer, logprobs = self.pair.tokenizer, []
        if job.top is not None:
            tokens = [t for t in response.tokens if t not in tokenizer.eos_token_ids]
            logprobs = token_logprobs(tokenizer, tokens, response.logprobs, job.top)
        if response.finish_reason is None:
            return Piece(response.text, logprobs, None)
        totals = Totals(
            finish_reason=response.finish_reason,
            prompt_tokens=len(job.ids),
            cached_tokens=cached,
            generated_tokens=response.generation_tokens,
            rounds=response.rounds,
            acceptance_length=round(response.mean_acceptance_length, 3),
            prompt_tps=round(response.prompt_tps, 1),
            generation_tps=round(response.generation_tps, 1),
            kinds=dict(response.statistics.kinds),
            compression=None if response.compression is None else response.compression.as_dict(),
            kv_reads=None if response.statistics.reads is None else response.statistics.reads.as_dict(),
        )
        return Piece(response.text, logprobs, totals)

    def _count(self, prompt_tokens: int, cached: int, last: GenerationResponse | None) -> None:
        metrics = self.metrics
        metrics.prompt_tokens.inc(prompt_tokens)
        metrics.cached_tokens.inc(cached)
        if last is not None:
            metrics.generated_tokens.inc(last.generation_tokens)
            for kind, count in last.statistics.kinds.items():
                metrics.rounds.labels(kind).inc(count)

    def _report_caches(self) -> None:
        self.metrics.sessions.set(len(self._sessions))
        self.metrics.cache_bytes.set(self._sessions.nbytes)


def stopping() -> ApiError:
    return ApiError(503, "the server is stopping", code="stopping")
