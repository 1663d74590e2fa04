"""What a request and the decoding thread tell each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.logprobs import TokenLogprob


@dataclass(frozen=True)
class PromptProgress:
    """Prompt tokens that are processed, of those that were not in a cache."""

    done: int
    total: int


@dataclass(frozen=True)
class AnswerTotals:
    """The figures of a finished answer.

    stopped_by: the stop string that has ended it, where one has.
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
    stopped_by: str | None = None
    compression: dict[str, Any] | None = None
    kv_reads: dict[str, Any] | None = None


@dataclass(frozen=True)
class Piece:
    """What a round said.  totals: of the whole answer, once it is complete."""

    text: str
    logprobs: list[TokenLogprob]
    totals: AnswerTotals | None

    @property
    def nbytes(self) -> int:
        """About what it takes in memory while nobody takes it."""
        return 500 + len(self.text) + sum(200 * (1 + len(token.top)) for token in self.logprobs)


Event = PromptProgress | Piece | ApiError


@dataclass(eq=False)
class Job:
    """A request as the thread sees it.

    options: makes the keyword arguments of `stream_generate`.
    top: most probable tokens to report of each position; None: no probabilities at all.
    send: hands an event to whoever asked; may be called from any thread.
    """

    ids: list[int]
    options: Callable[[], dict[str, Any]]
    top: int | None
    send: Callable[[Event], None]
    given_up: threading.Event = field(default_factory=threading.Event)
    asked_at: float = field(default_factory=monotonic)
