"""How a job is answered: its session, its pieces, what the metrics hear of it, and what becomes of errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import OFF
from mlx_ddtree.pflash.messages import without_aged
from mlx_ddtree.pflash.modes import MESSAGES
from mlx_ddtree.server.errors import ApiError, internal_error
from mlx_ddtree.server.events import Job, PromptProgress
from mlx_ddtree.server.metrics import Metrics
from mlx_ddtree.server.pieces import piece_of
from mlx_ddtree.server.prompt import fitting
from mlx_ddtree.server.sessions import Sessions
from mlx_ddtree.server.telling import Telling

LOG = logging.getLogger(__name__)
ROUNDS_BETWEEN_LOOKS = 32
"""Rounds after which the caches' memory is looked at while an answer grows."""


class _GivenUp(Exception):
    """Nobody waits for this answer any more."""


class Answering:
    """Answers jobs, in the thread that owns the pair and the sessions.

    decoding: options of `stream_generate` that all requests share.
    """

    def __init__(self, pair: Pair, sessions: Sessions, decoding: Mapping[str, Any], metrics: Metrics) -> None:
        self.pair = pair
        self.sessions = sessions
        self.decoding = decoding
        self.metrics = metrics

    def steps(self, job: Job, between: Callable[[], None]) -> Iterator[None]:
        """Send a job its answer, piece by piece, and give way after every round.

        between: called between two chunks of the prompt, while the caches stand still.
        """
        telling, outcome = Telling(job), "answered"
        try:
            yield from self._decode(job, between, telling)
        except _GivenUp:
            outcome = "given up"
        except (ApiError, MlxDdtreeError) as error:
            outcome = "refused"
            job.send(error if isinstance(error, ApiError) else ApiError(400, str(error)))
        except Exception:
            outcome = "failed"
            LOG.exception("a request failed")
            self.sessions.drop_all()  # after an error that nobody foresaw nothing is trusted
            job.send(internal_error())
        telling.count(self.metrics)
        self.sessions.trim()
        telling.log(outcome)
        self.metrics.sessions.set(len(self.sessions))
        self.metrics.cache_bytes.set(self.sessions.nbytes)

    def _decode(self, job: Job, between: Callable[[], None], telling: Telling) -> Iterator[None]:
        """Raises _GivenUp, and what decoding raises."""
        _look_at(job)
        options = {**self.decoding, **job.options()}
        compression = options.get("compression", OFF)
        with self.pair.lock:
            ids, lost = without_aged(self.pair, job.ids, compression.aged, compression, partial(_hear, job))
        if compression.mode == MESSAGES:
            options["compression"] = OFF
            fitting(self.pair, ids, "messages", OFF)
        telling.session = session = self.sessions.take(ids)

        def progress(done: int, total: int) -> None:
            _hear(job, done, total)
            self.sessions.make_room()
            if 0 < done < total - 1:  # behind the last chunk the answer begins
                between()
                _look_at(job)

        options["prompt_progress_callback"] = progress
        stream: Any = session.stream(ids, **options)
        with self.sessions.using(session), closing(stream):
            for response in stream:
                telling.note(response)
                _look_at(job)
                response.compression = response.compression or lost
                job.send(piece_of(self.pair.tokenizer, job, session.reused, response))
                if response.rounds % ROUNDS_BETWEEN_LOOKS == 0:
                    self.sessions.make_room()
                yield


def _hear(job: Job, done: int, total: int) -> None:
    """Tell a job how far its prompt is read.  Raises _GivenUp."""
    _look_at(job)
    job.send(PromptProgress(done, total))


def _look_at(job: Job) -> None:
    """Raise _GivenUp if nobody waits for a job any more."""
    if job.given_up.is_set():
        raise _GivenUp
