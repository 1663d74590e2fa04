"""A prompt cache that knows which tokens it holds, so that a conversation is not processed twice."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from inspect import GEN_CLOSED, getgeneratorstate
from threading import current_thread
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache

from mlx_ddtree.budget.memory import Memory
from mlx_ddtree.decoding.context import WHOLE, Coverage, PromptCache, make_prompt_cache
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.prompts import Prompt, prompt_token_ids
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.target.between_rounds import fit
from mlx_ddtree.target.marks import Mark
from mlx_ddtree.tuning.rounds import plain_step


@dataclass(frozen=True)
class PromptEnd:
    """Where the caches stood when they held a prompt but for its last token, and nothing more.

    tokens: of that prompt; mark: of the target's caches; coverage: what they hold of those tokens.
    """

    tokens: int
    mark: Mark
    coverage: Coverage


class Session:
    """Answers prompts, and keeps the caches from one to the next.

    A prompt that begins like what the caches hold goes on from there; a chat's next turn always does, but
    for what its template changes in earlier turns.  One answer at a time: a new one closes an older one that was
    not read to its end.

    remembers: whether answers are drafted from the session's earlier ones, until it is reset, where no other `memory`
        is asked for.  Not where sessions pass from one user to another.
    reused: how many tokens of the last prompt were not processed again.
    """

    def __init__(self, pair: Pair, *, remembers: bool = True) -> None:
        self.pair = pair
        self.remembers = remembers
        self._open: Generator[GenerationResponse, None, None] | None = None
        self._reader = current_thread()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._close()
        self.memory = Memory() if self.remembers else None
        self._forget()

    def _forget(self) -> None:
        self.cache: PromptCache = make_prompt_cache(self.pair)
        self.reused = 0
        self._prompt_end: PromptEnd | None = None

    @property
    def token_ids(self) -> list[int]:
        """What the caches stand for; `cache.coverage` says whether all of it is in them."""
        return self.cache.token_ids

    @property
    def nbytes(self) -> int:
        """Memory of the caches, and of what is kept to take them back to the end of the prompt."""
        marked = [] if self._prompt_end is None else self._prompt_end.mark
        kept = sum(x.nbytes for standing in marked for x in standing if isinstance(x, mx.array))
        return kept + sum(layer.nbytes for layer in self.cache)

    def stream(self, prompt: Prompt, max_tokens: int = 256, **options: Any) -> Iterator[GenerationResponse]:
        """`stream_generate` over the whole prompt, of which only what is new is processed.

        Raises OptionError if another thread is reading an answer of this session.
        """
        self._close()
        ids = prompt_token_ids(self.pair, prompt)
        answer = self._answer(prompt, ids, max_tokens, options)
        self._open = answer
        self._reader = current_thread()
        return answer

    def _answer(
        self, prompt: Prompt, ids: list[int], max_tokens: int, options: dict[str, Any]
    ) -> Generator[GenerationResponse, None, None]:
        with self.pair.lock:
            rest = ids[self.resume(ids) :]
        report = options.pop("prompt_progress_callback", None)
        given = options.get("options")
        if options.get("memory") is None and (given is None or given.memory is None):
            options["memory"] = self.memory
        compression = options.get("compression")
        if compression is not None and compression.concerns(len(rest)):
            options["compression"] = self._protecting(compression, prompt, ids)

        def progress(done: int, total: int) -> None:
            if done == total - 1:  # both caches hold everything but the last token, and nothing more
                marked = self.pair.target.mark(self.cache.target)
                self._prompt_end = PromptEnd(len(ids) - 1, marked, self.cache.coverage)
            if report:
                report(done, total)

        yield from stream_generate(
            self.pair, rest, max_tokens, prompt_cache=self.cache, prompt_progress_callback=progress, **options
        )

    def _close(self) -> None:
        """End an answer that was not read to its end: until then the caches run ahead of their tokens."""
        answer = self._open
        if answer is None or getgeneratorstate(answer) == GEN_CLOSED:
            return
        if self._reader is not current_thread() and self._reader.is_alive():
            raise OptionError(
                "this session is answering another thread's prompt: wait for the end of that answer, or use a session "
                "of your own"
            )
        answer.close()
        self._open = None

    def _protecting(self, compression: PrefillCompression, prompt: Prompt, ids: list[int]) -> PrefillCompression:
        """What is protected in the rest of this prompt; a text to protect may come in another one."""
        return compression.protecting(self.pair, prompt, ids, must_occur=False).behind(self.reused)

    def plain_tps(self) -> float:
        """Tokens a second that plain decoding makes after what the caches hold: measured now, changing nothing."""
        state = DecodeState(self.pair, self.cache, self.token_ids[-1])
        return 1 / plain_step(state)

    def reusable(self, ids: Sequence[int]) -> int:
        """How many of `ids` would not be processed again: what `resume` returns."""
        shared = self._shared(ids)
        if shared == len(self.token_ids):
            return shared
        if can_trim_prompt_cache(self.cache.target):
            # A compressed prompt stands for itself only; what nothing was dropped of stays.
            coverage = self.cache.coverage
            return shared if shared >= coverage.source else min(shared, coverage.head)
        end = 0 if self._prompt_end is None else self._prompt_end.tokens
        return end if end <= shared else 0

    def keeps_prompt(self, length: int) -> bool:
        """Whether going back to `length` tokens takes back nothing but the last answer."""
        end = len(self.token_ids) if self._prompt_end is None else self._prompt_end.tokens
        return length >= end

    def fork(self, ids: Sequence[int]) -> Session:
        """A session that stands where `resume(ids)` would take this one, which stays as it is."""
        other = Session(self.pair, remembers=self.remembers)
        other.cache = self.cache.copy_for(self.pair)
        other._prompt_end = self._prompt_end
        other.resume(ids)
        self.pair.target.fit(other.cache.target)
        for layer in other.cache.drafter:
            fit(layer)
        return other

    def resume(self, ids: Sequence[int]) -> int:
        """Set the caches back to the longest beginning that they share with `ids`, but for its last token;
        its length."""
        shared = self.reusable(ids)
        if shared < len(self.token_ids):
            self._take_back(shared)
        self.reused = shared
        return shared

    def _take_back(self, shared: int) -> None:
        """Let the caches hold their first `shared` tokens only."""
        coverage = self.cache.coverage
        length = len(self.token_ids)
        if can_trim_prompt_cache(self.cache.target):
            rows = rows_of(length, coverage.rows, coverage) - rows_of(shared, coverage.rows, coverage)
            self.pair.target.trim(self.cache.target, rows)
            self.cache.coverage = coverage if shared >= coverage.source else WHOLE
        elif shared and self._prompt_end is not None:
            self.cache.coverage = self._prompt_end.coverage
            self.pair.target.rewind(self.cache.target, self._prompt_end.mark)
        else:
            self._forget()
        for layer in self.cache.drafter if shared else []:
            layer.offset = min(layer.offset, rows_of(shared, coverage.drafter_rows, coverage))
        del self.token_ids[shared:]
        if self._prompt_end is not None and self._prompt_end.tokens > shared:
            self._prompt_end = None

    def _shared(self, ids: Sequence[int]) -> int:
        """How many first tokens of the caches are those of `ids`, its last one not counted."""
        shorter = min(len(self.token_ids), len(ids) - 1)
        for place in range(shorter):
            if self.token_ids[place] != ids[place]:
                return place
        return shorter


def rows_of(tokens: int, rows: int, coverage: Coverage) -> int:
    """Rows of the first `tokens` tokens, `rows` being those of the compressed ones: as many as tokens in the head
    (coverage.head), and after what was compressed one more for each."""
    return tokens if tokens < coverage.source else rows + tokens - coverage.source
