"""A prompt cache that knows which tokens it holds, so that a conversation is not processed twice."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from inspect import GEN_CLOSED, GEN_RUNNING, getgeneratorstate
from threading import current_thread
from typing import Any

from mlx_lm.models.cache import can_trim_prompt_cache

from mlx_ddtree.budget.memory import Memory
from mlx_ddtree.decoding.context import WHOLE, Coverage, PromptCache, make_prompt_cache
from mlx_ddtree.decoding.prefill import Progress
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.calls import options_of
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.places import RUNG, Place, Places
from mlx_ddtree.generation.prompts import Prompt, conversation_template, prompt_token_ids
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.generation.turns import chunk_ends, openings_of, shared_beginning
from mlx_ddtree.machine import memory
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import OFF, CompressionReport, PrefillCompression, is_chat
from mlx_ddtree.pflash.messages import aged_spans, without_aged
from mlx_ddtree.pflash.modes import MESSAGES
from mlx_ddtree.target.between_rounds import fit
from mlx_ddtree.target.marks import cut_by_offset
from mlx_ddtree.tuning.rounds import plain_step

MEMORY_SHARE = 32
"""One part in so many of the machine's memory may hold the places of a session that goes back to earlier ones."""


FOUND_IN = ("memory", "place", "disk", "none")
"""Where caches were that a prompt goes on from: as they stood or cut, at a place that they went back to, in a folder
(generation/stored), nowhere."""


class Session:
    """Answers prompts, and keeps the caches from one to the next.

    A prompt that begins like what the caches hold goes on from there; a chat's next turn always does, but
    for what its template changes in earlier turns.  Caches that cannot be cut (recurrent layers, sliding windows) go
    back to the last place before that: places are kept before messages, in long texts and at the prompt's end.  One
    answer at a time: a new one closes an older one that was not read to its end.

    template: further arguments of the chat template, such as {"enable_thinking": False}.
    places_bytes: memory for these places in all; by default a 32nd of the machine's.
    remembers: whether answers are drafted from the session's earlier ones, until it is reset, where no other `memory`
        is asked for.  Not where sessions pass from one user to another.
    reused: how many tokens of the last prompt were not processed again.
    found_in: where the caches that it went on from were: one of FOUND_IN.
    departs_at: how many first tokens the next prompt shares with one that could not be gone back to that far; the place
        there is kept, because others may depart there too.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        remembers: bool = True,
        places_bytes: int | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        self.pair = pair
        self.template = conversation_template(pair.tokenizer) | dict(template or {})
        self.remembers = remembers
        self.places_bytes = memory() // MEMORY_SHARE if places_bytes is None else places_bytes
        self._open: Generator[GenerationResponse, None, None] | None = None
        self._reader = current_thread()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._close()
        self.memory = Memory() if self.remembers else None
        self.departs_at = 0
        self._forget()

    def _forget(self) -> None:
        self.cache: PromptCache = make_prompt_cache(self.pair)
        self.reused = 0
        self.found_in = "none"
        self._stands = "memory"  # where what the caches hold was found, as long as nothing is taken back
        self.places = Places(self.places_bytes)
        self._turn = 0  # tokens before the last prompt's last message, or before its own last one

    @property
    def token_ids(self) -> list[int]:
        """What the caches stand for; `cache.coverage` says whether all of it is in them."""
        return self.cache.token_ids

    @property
    def nbytes(self) -> int:
        """Memory of the caches, and of the places that they can go back to."""
        return self.places.nbytes + sum(layer.nbytes for layer in self.cache)

    def stream(self, prompt: Prompt, max_tokens: int = 256, **options: Any) -> Iterator[GenerationResponse]:
        """`stream_generate` over the whole prompt, of which only what is new is processed.

        Messages keep the reasoning of earlier answers where the template has `preserve_thinking`.

        Raises OptionError if another thread is reading an answer of this session.
        """
        self._close()
        ids = prompt_token_ids(self.pair, prompt, self.template)
        answer = self._answer(prompt, ids, max_tokens, options)
        self._open = answer
        self._reader = current_thread()
        return answer

    def _answer(
        self, prompt: Prompt, ids: list[int], max_tokens: int, options: dict[str, Any]
    ) -> Generator[GenerationResponse, None, None]:
        report = options.pop("prompt_progress_callback", None)
        given = options.get("options")
        how = options_of(given, max_tokens, {name: value for name, value in options.items() if name != "options"})
        if how.memory is None:
            how = how.changed(memory=self.memory)
        with self.pair.lock:
            ids, lost = self._without_aged(prompt, ids, how.make_compression(), report)
            rest = ids[self.resume(ids) :]
        how = how.with_compression(self._compression(how, prompt, ids, rest))
        passed = self._passing(ids, how)

        def progress(done: int, total: int) -> None:
            passed(done)
            if report:
                report(done, total)

        stream: Any = stream_generate(
            self.pair, rest, prompt_cache=self.cache, prompt_progress_callback=progress, options=how
        )
        with closing(stream):
            for response in stream:
                response.compression = response.compression or lost
                yield response

    def _without_aged(
        self, prompt: Prompt, ids: list[int], compression: PrefillCompression, report: Progress | None
    ) -> tuple[list[int], CompressionReport | None]:
        """A conversation's tokens without what its aged messages lose, and what that is."""
        if compression.mode != MESSAGES or not is_chat(prompt):
            return ids, None
        messages: Any = prompt
        aged = aged_spans(self.pair.tokenizer, messages, ids, compression.threshold, **self.template)
        return without_aged(self.pair, ids, aged, compression, report)

    def _compression(
        self, how: GenerationOptions, prompt: Prompt, ids: list[int], rest: list[int]
    ) -> PrefillCompression:
        """How the rest of a prompt is compressed."""
        compression = how.make_compression()
        if compression.mode == MESSAGES:
            return OFF
        return self._protecting(compression, prompt, ids) if compression.concerns(len(rest)) else compression

    def _passing(self, ids: Sequence[int], how: GenerationOptions) -> Callable[[int], None]:
        """What keeps places while a prompt is processed: told how many tokens of what is new the caches hold."""
        ends = chunk_ends(ids, openings_of(self.pair), how.prefill_step_size)
        self._turn = ends.turns[-1] if ends.turns else len(ids) - 1
        whole = cut_by_offset(self.cache.target) and how.max_kv_size is None
        self.cache.chunk_ends = () if whole else ends.all
        start, last, before = self.reused, len(ids) - 1, self.cache.coverage
        near = max((end for end in ends.all if start < end <= self.departs_at), default=0)
        self.departs_at = 0
        anchors = {near, *ends.turns[:1]}

        def passed(done: int) -> None:
            tokens = start + done
            coverage = self.cache.coverage
            if whole or not start < tokens <= last:  # nothing is processed yet, or the first token of the answer is
                return
            if tokens < last and coverage != before:  # the rows of a compressed prompt were chosen for its end
                return
            turn = tokens in ends.turns
            if turn or tokens in (near, last) or tokens - self.places.last >= RUNG:
                self._keep_place(tokens, anchor=tokens in anchors)

        return passed

    def _keep_place(self, tokens: int, anchor: bool) -> None:
        """Keep where the caches stand, which hold so many tokens and nothing more."""
        target, layers = self.pair.target, self.cache.target
        marked = target.mark(layers)
        target.fit_mark(layers, marked)
        self.places.add(Place(tokens, marked, self.cache.coverage, anchor))

    def _close(self) -> None:
        """End an answer that was not read to its end: until then the caches run ahead of their tokens."""
        answer = self._open
        if answer is None or getgeneratorstate(answer) == GEN_CLOSED:
            return
        elsewhere = self._reader is not current_thread() and self._reader.is_alive()
        if elsewhere or getgeneratorstate(answer) == GEN_RUNNING:
            raise OptionError(
                "this session is answering another thread's prompt: wait for the end of that answer, or use a session "
                "of your own"
            )
        answer.close()
        self._open = None

    def _protecting(self, compression: PrefillCompression, prompt: Prompt, ids: list[int]) -> PrefillCompression:
        """What is protected in the rest of this prompt; a text to protect may come in another one."""
        return compression.protecting(self.pair, prompt, ids, must_occur=False, **self.template).behind(self.reused)

    def plain_tps(self) -> float:
        """Tokens a second that plain decoding makes after what the caches hold: measured now, changing nothing."""
        state = DecodeState(self.pair, self.cache, self.token_ids[-1])
        return 1 / plain_step(state)

    def reusable(self, ids: Sequence[int]) -> int:
        """How many of `ids` would not be processed again: what `resume` returns."""
        return self._goes_back_to(self.shared(ids))

    def _goes_back_to(self, shared: int) -> int:
        """How many first tokens the caches hold once they hold none behind the first `shared`."""
        if shared == len(self.token_ids):
            return shared
        if can_trim_prompt_cache(self.cache.target):
            # A compressed prompt stands for itself only; what nothing was dropped of stays.
            coverage = self.cache.coverage
            return shared if shared >= coverage.source else min(shared, coverage.head)
        place = self.places.before(shared, self.cache.coverage)
        return 0 if place is None else place.tokens

    def keeps_prompt(self, length: int) -> bool:
        """Whether going back to `length` tokens takes back no more than the last answer and what asked for it."""
        return length >= min(len(self.token_ids), self._turn)

    def fork(self, ids: Sequence[int]) -> Session:
        """A session that stands where `resume(ids)` would take this one, which stays as it is."""
        other = Session(self.pair, remembers=self.remembers, places_bytes=self.places_bytes, template=self.template)
        other.cache = self.cache.copy_for(self.pair)
        other.places = self.places.copy()
        other._turn = self._turn
        other.resume(ids)
        other._stands = other.found_in
        self.pair.target.fit(other.cache.target)
        for layer in other.cache.drafter:
            fit(layer)
        return other

    def resume(self, ids: Sequence[int]) -> int:
        """Set the caches back to the longest beginning that they share with `ids`, but for its last token;
        its length."""
        departs_at = self.shared(ids)
        shared = self._goes_back_to(departs_at)
        if departs_at > shared:
            self.departs_at = departs_at
        found = self._stands if shared == len(self.token_ids) else self._take_back(shared)
        self.found_in = found if shared else "none"
        self._stands = "memory"
        self.reused = shared
        return shared

    def stand_behind(self, ids: Sequence[int]) -> None:
        """Take the caches, which were empty and have been filled from files, as those of these tokens."""
        self.cache.token_ids = list(ids)
        self._turn = len(ids)
        self._stands = "disk"
        if not cut_by_offset(self.cache.target):
            self._keep_place(len(ids), anchor=True)

    def _take_back(self, shared: int) -> str:
        """Let the caches hold their first `shared` tokens only; where these were found."""
        coverage = self.cache.coverage
        length = len(self.token_ids)
        found = "memory"
        if can_trim_prompt_cache(self.cache.target):
            rows = rows_of(length, coverage.rows, coverage) - rows_of(shared, coverage.rows, coverage)
            self.pair.target.trim(self.cache.target, rows)
            self.cache.coverage = coverage if shared >= coverage.source else WHOLE
        elif (place := self.places.before(shared, coverage)) is not None and shared:
            self.cache.coverage = place.coverage
            self.pair.target.rewind(self.cache.target, place.mark)
            found = "place"
        else:
            self._forget()
        for layer in self.cache.drafter if shared else []:
            layer.offset = min(layer.offset, rows_of(shared, coverage.drafter_rows, coverage))
        del self.token_ids[shared:]
        self.places.cut(shared)
        return found

    def shared(self, ids: Sequence[int]) -> int:
        """How many first tokens of the caches are those of `ids`, its last one not counted."""
        return min(shared_beginning(self.token_ids, ids), len(ids) - 1)


def rows_of(tokens: int, rows: int, coverage: Coverage) -> int:
    """Rows of the first `tokens` tokens, `rows` being those of the compressed ones: as many as tokens in the head
    (coverage.head), and after what was compressed one more for each."""
    return tokens if tokens < coverage.source else rows + tokens - coverage.source
