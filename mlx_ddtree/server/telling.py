"""What the log and the metrics hear of an answer: figures, and never a word of what was said."""

from __future__ import annotations

import logging
from time import monotonic

from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.session import Session
from mlx_ddtree.server.events import Job
from mlx_ddtree.server.metrics import Metrics

LOG = logging.getLogger(__name__)


class Telling:
    """The figures of one answer, while it is made.

    session: that makes it, once it is chosen.
    last: the newest response.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.session: Session | None = None
        self.last: GenerationResponse | None = None
        self._began = monotonic()
        self._first: float | None = None

    def note(self, response: GenerationResponse) -> None:
        """A round was made."""
        self.last = response
        if self._first is None:
            self._first = monotonic()

    def count(self, metrics: Metrics) -> None:
        """Add the answer to the metrics; one that was never begun is none."""
        if self.session is None:
            return
        metrics.prompt_tokens.inc(len(self.job.ids))
        metrics.cached_tokens.inc(self.session.reused)
        metrics.cache_hits.labels(self.session.found_in).inc()
        metrics.cache_hit_tokens.labels(self.session.found_in).inc(self.session.reused)
        if self.last is not None:
            metrics.generated_tokens.inc(self.last.generation_tokens)
            for kind, count in self.last.statistics.kinds.items():
                metrics.rounds.labels(kind).inc(count)

    def log(self, outcome: str) -> None:
        """A line at level INFO.  outcome: in a word or two."""
        if LOG.isEnabledFor(logging.INFO):
            LOG.info("%s: %s", outcome, ", ".join(self._figures()))

    def _figures(self) -> list[str]:
        found = [f"{len(self.job.ids)} prompt tokens"]
        if self.session is not None:
            where = self.session.found_in
            found.append("none of them cached" if where == "none" else f"{self.session.reused} of them from {where}")
        found.append(f"waited {self._began - self.job.asked_at:.2f} s")
        if self.last is not None and self._first is not None:
            seconds = monotonic() - self._first
            found += [
                f"first token {self._first - self._began:.2f} s later",
                f"{self.last.generation_tokens} tokens in {seconds:.2f} s",
                f"{self.last.mean_acceptance_length:.2f} a round",
                f"ended by {self.last.finish_reason or 'nobody waiting'}",
            ]
        return found
