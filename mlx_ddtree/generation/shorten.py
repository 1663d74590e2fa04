"""What one call takes away from its prompt: tokens before the target reads them, rows of the caches behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from mlx_ddtree.decoding.context import PromptCache
from mlx_ddtree.decoding.prefill import Kept, Progress
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError
from mlx_ddtree.pflash.compress import CompressionReport, PrefillCompression, compress
from mlx_ddtree.pflash.kv_filter import check_filter, filter_cache
from mlx_ddtree.target.last_queries import last_queries_views


@dataclass
class Shortening:
    """One prompt's.

    kept: the tokens that are processed; None: all of them.
    report: is complete once the first token is there.
    """

    state: DecodeState
    kept: Kept | None
    kv_keep_ratio: float | None
    report: CompressionReport
    started: float
    views: list[Any] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        state: DecodeState,
        prompt: Any,
        ids: Sequence[int],
        compression: PrefillCompression | None,
        kv_keep_ratio: float | None,
        prompt_cache: list[Any] | None,
        progress: Progress | None = None,
    ) -> Shortening | None:
        """None if nothing is to be taken away.  Raises OptionError, PromptError, UnsupportedModelError.

        progress: hears, while the scorer reads, that no token is processed yet; it may raise to give up.
        """
        started = perf_counter()
        concerned = compression is not None and compression.concerns(len(ids))
        if not concerned and kv_keep_ratio is None:
            return None
        if prompt_cache is not None and not isinstance(prompt_cache, PromptCache):
            raise OptionError("a compressed prompt needs a cache that knows its gaps: use make_prompt_cache(pair)")
        if kv_keep_ratio is not None:
            state.pair.target.on_one_machine("filtering the prompt's keys and values (--kv-keep-ratio)")
            check_filter(state.pair.target, state.caches.target, kv_keep_ratio)
        kept, report = None, CompressionReport.whole(len(ids))
        if compression is not None and concerned:
            ready = compression.protecting(state.pair, prompt, ids)
            kept, report = compress(state.pair, ids, ready, state.position, progress)
        return cls(state, kept, kv_keep_ratio, report, started)

    @property
    def positions(self) -> int:
        """How many the prompt takes."""
        compact = self.kept is not None and self.kept.compact
        return self.report.kept_tokens if compact else self.report.prompt_tokens

    def prefill_options(self) -> dict[str, Any]:
        """Keyword arguments of `prefill`."""
        if self.kv_keep_ratio is None:
            return {"kept": self.kept, "then": self._cached}
        self.views = last_queries_views(self.state.caches.target)
        return {"kept": self.kept, "then": self._cached, "through": self.views}

    def _cached(self) -> None:
        """The caches hold the prompt."""
        if self.kv_keep_ratio is not None:
            started = perf_counter()
            self.report.kv_rows = filter_cache(self.state, self.views, self.kv_keep_ratio)
            if self.kv_keep_ratio < 1 and self.report.kv_rows[0] == self.report.kv_rows[1]:
                self.report.kv_refused = f"{self.report.kv_rows[0]} rows are too few to choose from at this ratio"
            self.report.seconds["filter"] = perf_counter() - started
            self.views = []

    def first_token(self, seconds: dict[str, float]) -> None:
        """Note that the first token is there; seconds: by stage, to which scoring and filtering are added."""
        filtering = self.report.seconds.get("filter", 0.0)
        scoring = self.report.seconds.get("score", 0.0)
        self.report.seconds |= {
            "prefill": seconds["prefill"] - filtering,
            "first_token": perf_counter() - self.started,
        }
        seconds["score"] = scoring
