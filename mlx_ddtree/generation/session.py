"""A prompt cache that knows which tokens it holds, so that a conversation is never processed twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache

from mlx_ddtree.decoding.context import WHOLE, Held, copy_prompt_cache, make_prompt_cache, split_cache
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.generation.prompts import Prompt, prompt_token_ids
from mlx_ddtree.generation.stream import GenerationResponse, stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.target.between_rounds import fit
from mlx_ddtree.target.views import Mark
from mlx_ddtree.tuning.measure import plain_step


class Session:
    """Answers prompts, and keeps the caches from one to the next.

    A prompt that begins like what the caches hold goes on from there; a chat's next turn always does, but
    for what its template changes in earlier turns.

    reused: how many tokens of the last prompt were not processed again.
    """

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.cache = make_prompt_cache(self.pair)
        self.reused = 0
        self._prompt_end: tuple[int, Mark, Held] | None = None

    @property
    def token_ids(self) -> list[int]:
        """What the caches stand for; `cache.held` says whether all of it is in them."""
        return self.cache.token_ids

    @property
    def nbytes(self) -> int:
        """Memory of the caches, and of what is kept to take them back to the end of the prompt."""
        marked = [] if self._prompt_end is None else self._prompt_end[1]
        kept = sum(x.nbytes for standing in marked for x in standing if isinstance(x, mx.array))
        return kept + sum(layer.nbytes for layer in self.cache)

    def stream(self, prompt: Prompt, max_tokens: int = 256, **options: Any) -> Iterator[GenerationResponse]:
        """`stream_generate` over the whole prompt, of which only what is new is processed."""
        ids = prompt_token_ids(self.pair, prompt)
        rest = ids[self.resume(ids) :]
        report = options.pop("prompt_progress_callback", None)
        if (compression := options.get("compression")) is not None and compression.concerns(len(rest)):
            options["compression"] = self._protecting(compression, prompt, ids)

        def progress(done: int, total: int) -> None:
            if done == total - 1:  # both caches hold everything but the last token, and nothing more
                marked = self.pair.target.mark(self.cache[: self.pair.target.num_caches])
                self._prompt_end = len(ids) - 1, marked, self.cache.held
            if report:
                report(done, total)

        yield from stream_generate(
            self.pair, rest, max_tokens, prompt_cache=self.cache, prompt_progress_callback=progress, **options
        )

    def _protecting(self, compression: PrefillCompression, prompt: Prompt, ids: list[int]) -> PrefillCompression:
        """What is protected in the rest of this prompt; a text to protect may come in another one."""
        return compression.protecting(self.pair, prompt, ids, must_occur=False).behind(self.reused)

    def plain_tps(self) -> float:
        """Tokens a second that plain decoding makes after what the caches hold: measured now, changing nothing."""
        target_cache, _, length = split_cache(self.pair, self.cache, "ar")
        state = DecodeState(self.pair, target_cache, [], length, self.token_ids[-1], held=self.cache.held)
        return 1 / plain_step(state)

    def reusable(self, ids: Sequence[int]) -> int:
        """How many of `ids` would not be processed again: what `resume` returns."""
        target_cache, _, _ = split_cache(self.pair, self.cache, "ar")
        shared = self._shared(ids)
        if shared == len(self.token_ids):
            return shared
        if can_trim_prompt_cache(target_cache):
            held = self.cache.held  # a compressed prompt stands for itself only; what nothing was dropped of stays
            return shared if shared >= held.source else min(shared, held.head)
        end = 0 if self._prompt_end is None else self._prompt_end[0]
        return end if end <= shared else 0

    def keeps_prompt(self, length: int) -> bool:
        """Whether going back to `length` tokens takes back nothing but the last answer."""
        end = len(self.token_ids) if self._prompt_end is None else self._prompt_end[0]
        return length >= end

    def fork(self, ids: Sequence[int]) -> Session:
        """A session that stands where `resume(ids)` would take this one, which stays as it is."""
        other = Session(self.pair)
        other.cache, other._prompt_end = copy_prompt_cache(self.pair, self.cache), self._prompt_end
        other.resume(ids)
        target_cache, drafter_cache, _ = split_cache(self.pair, other.cache, "ar")
        self.pair.target.fit(target_cache)
        for layer in drafter_cache:
            fit(layer)
        return other

    def resume(self, ids: Sequence[int]) -> int:
        """Set the caches back to the longest beginning that they share with `ids`, but for its last token;
        its length."""
        target_cache, drafter_cache, _ = split_cache(self.pair, self.cache, "ar")
        length, shared = len(self.token_ids), self.reusable(ids)
        if shared < length:
            held = self.cache.held
            if can_trim_prompt_cache(target_cache):
                rows = rows_of(length, held.rows, held) - rows_of(shared, held.rows, held)
                self.pair.target.trim(target_cache, rows)
                self.cache.held = held if shared >= held.source else WHOLE
            elif shared and self._prompt_end is not None:
                _, marked, self.cache.held = self._prompt_end
                self.pair.target.rewind(target_cache, marked)
            else:
                self.reset()
            for layer in drafter_cache if shared else []:
                layer.offset = min(layer.offset, rows_of(shared, held.drafter_rows, held))
            del self.token_ids[shared:]
            if self._prompt_end is not None and self._prompt_end[0] > shared:
                self._prompt_end = None
        self.reused = shared
        return shared

    def _shared(self, ids: Sequence[int]) -> int:
        pairs = zip(self.token_ids, ids[:-1], strict=False)
        shorter = min(len(self.token_ids), len(ids) - 1)
        return next((i for i, (have, want) in enumerate(pairs) if have != want), shorter)


def rows_of(tokens: int, rows: int, held: Held) -> int:
    """Rows of the first `tokens` tokens, `rows` being those of the compressed ones: as many as tokens in the head
    (held.head), and after what was compressed one more for each."""
    return tokens if tokens < held.source else rows + tokens - held.source
