"""The thread that owns MLX, and the queue before it.

MLX's streams belong to threads, so models are loaded, used and given up in this one.  One request is decoded
at a time, in the order in which they came; while a long prompt is read, small ones are answered between its chunks.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import mlx.core as mx
from mlx_lm.generate import wired_limit

from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.generation.stored.prefixes import StoredPrefixes
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.generation.turns import openings_of
from mlx_ddtree.pair import Pair
from mlx_ddtree.server.answering import Answering
from mlx_ddtree.server.beside import SMALL, Beside
from mlx_ddtree.server.errors import ApiError, internal_error, queue_full, stopping
from mlx_ddtree.server.events import Job
from mlx_ddtree.server.idle import measure_while, measured_share
from mlx_ddtree.server.metrics import Metrics
from mlx_ddtree.server.sessions import Sessions

LOG = logging.getLogger(__name__)


def _nothing() -> None:
    """What happens between the chunks of a prompt that is read beside another one."""


class Engine:
    """Answers jobs, one at a time, but for small ones beside a long prompt.

    The engine's thread is the one owner of the models, of the sessions and of whatever else holds arrays; other threads
    hand it jobs and get events back.

    load: makes the pair.
    decoding: method, tree_budget and other options of `stream_generate` that all requests share.
    queue_size: jobs that may wait.
    cache_size, cache_bytes: sessions that are kept, and their memory in all.
    folder: keeps what they hold besides, over the engine's end; None: nothing does.
    """

    def __init__(
        self,
        load: Callable[[], Pair],
        decoding: Mapping[str, Any],
        *,
        queue_size: int,
        cache_size: int,
        cache_bytes: int,
        folder: StoredFolder | None = None,
    ) -> None:
        self._load = load
        self._decoding = dict(decoding)
        self.queue_size = queue_size
        self._cache_size = cache_size
        self._cache_bytes = cache_bytes
        self._folder = folder
        self.metrics = Metrics()
        if folder is not None:
            self.metrics.disk_bytes.set_function(lambda: folder.nbytes)
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._ready = threading.Event()
        self._load_error: Exception | None = None
        self._recent_seconds = 1.0
        self._thread = threading.Thread(target=self._work, name="mlx_ddtree decoding", daemon=True)
        self._beside = Beside(self._small, lambda job: self._answering.steps(job, _nothing))
        self.pair: Pair | None = None
        self.metrics.waiting.set_function(lambda: len(self._waiting))
        self.metrics.running.set_function(lambda: len(self._at_work))

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

    @property
    def measured(self) -> float:
        """The share of the pair's measurements that is made; 1 where there is nothing to measure."""
        return measured_share(self.pair)

    def submit(self, job: Job, goes_on: bool = False) -> None:
        """Queue a job; goes_on: of a request that has had an answer already.

        Raises ApiError 429 if the queue is full, 503 if no answer can be expected.
        """
        with self._changed:
            if not self.alive:
                raise stopping()
            busy = self._running is not None or self._waiting
            if len(self._waiting) >= self.queue_size and busy and not goes_on:
                raise queue_full(len(self._waiting), self._recent_seconds)
            self._waiting.append(job)
            self._changed.notify()

    def give_up(self, job: Job) -> None:
        """Nobody waits for this job any more: it leaves the queue, or its decoding ends with the round."""
        job.given_up.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def drain(self) -> None:
        """From now on nothing is begun; what runs goes on."""
        with self._changed:
            self._stopping = True
            refused = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for job in refused:
            job.send(stopping())

    def cut(self) -> None:
        """End what runs, with its round."""
        for job in self._at_work:
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
        for job in self._at_work:
            job.send(ApiError(503, reason, code="machine_lost"))

    def _work(self) -> None:
        """The thread: load, answer until nothing comes any more, give up the models."""
        try:
            self._prepare()
        except Exception as error:
            self._load_error = error
        self._ready.set()
        try:
            if self._load_error is None:
                assert self.pair is not None
                with wired_limit(self.pair.target.model):  # not per request: wiring a large model takes its time
                    self._answer_all()
        except BaseException:
            LOG.exception("the decoding thread ended")
            self.drain()
            for job in self._at_work:
                job.send(internal_error())
        finally:
            self.pair = None
            if self._load_error is None:
                self._sessions.close()
                del self._sessions, self._answering
            elif self._folder is not None:
                self._folder.close()
            gc.collect()
            mx.synchronize()
            mx.clear_streams()  # else the process may abort when it ends

    def _prepare(self) -> None:
        """Load, and do once whatever a first request would have to wait for."""
        pair = self._load()
        pair.target.when_lost(self._lost)
        openings_of(pair)  # a tokenizer sets itself up at first use, which two threads must not do at once
        pair.tokenizer.encode("a")
        for _ in stream_generate(pair, [0, 0], 2, **self._decoding):  # measures the pair, compiles its kernels
            pass
        stored = None if self._folder is None else StoredPrefixes(pair, self._folder)
        self._sessions = Sessions(pair, self._cache_size, self._cache_bytes, stored)
        self._answering = Answering(pair, self._sessions, self._decoding, self.metrics)
        self.pair = pair

    def _answer_all(self) -> None:
        while True:
            job = self._next()
            if job is None:
                return
            self._answer(job)

    def _next(self) -> Job | None:
        """The job that is to be answered now, once there is one; None when the engine stops."""
        with self._changed:
            self._running = None
        assert self.pair is not None
        self._sessions.save_while(self._is_idle)
        measure_while(self._is_idle, self.pair)
        with self._changed:
            while not self._waiting:
                if self._stopping:
                    return None
                self._changed.wait()
            self._running = self._waiting.popleft()
            return self._running

    def _is_idle(self) -> bool:
        return not self._waiting and not self._stopping

    def _answer(self, job: Job) -> None:
        """Answer a job, and small ones beside it (beside.py)."""
        started = perf_counter()
        self._beside.begin()
        for _ in self._answering.steps(job, self._beside.between_chunks):
            self._beside.step()
        if self._beside.job is not None:
            self._running = self._beside.job
            self._beside.finish()
        self._recent_seconds += 0.2 * (perf_counter() - started - self._recent_seconds)

    def _small(self) -> Job | None:
        """The first job in the queue that has few tokens to process; it leaves the queue."""
        with self._changed:
            waiting = list(self._waiting)
        for job in waiting:
            if len(job.ids) - self._sessions.reusable(job.ids) <= SMALL:
                with self._changed:
                    if job in self._waiting:  # it may have been given up meanwhile
                        self._waiting.remove(job)
                        return job
        return None

    @property
    def _at_work(self) -> list[Job]:
        """What is being decoded: one job, or another one beside it."""
        jobs = [self._running, self._beside.job]
        return list(dict.fromkeys(job for job in jobs if job is not None))
