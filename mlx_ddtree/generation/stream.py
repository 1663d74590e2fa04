"""stream_generate and generate: one answer, round by round or whole."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, cast, overload

from mlx_lm.generate import wired_limit

from mlx_ddtree.decoding.context import open_prompt_cache, sole_use
from mlx_ddtree.decoding.loop import decode_rounds
from mlx_ddtree.decoding.prefill import Progress, prefill, read_by_drafter
from mlx_ddtree.decoding.round import Clock, decode_round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import TextStream
from mlx_ddtree.generation.branches import generate_branches
from mlx_ddtree.generation.calls import callable_as_in_mlx_lm, options_of
from mlx_ddtree.generation.grammars import open_walk
from mlx_ddtree.generation.memory import open_memory
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.planning import (
    check_compression,
    check_small_caches,
    fit_to_pair,
    keep_caches_small,
    make_plan,
    max_new_tokens,
)
from mlx_ddtree.generation.prompts import Prompt, prompt_token_ids
from mlx_ddtree.generation.response import GenerationResponse, Meter, summary
from mlx_ddtree.generation.shorten import Shortening
from mlx_ddtree.grammar.walk import GrammarWalk
from mlx_ddtree.icecache.paging import make_paging
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tuning.store import save_if_worth


@callable_as_in_mlx_lm
def stream_generate(
    pair: Pair,
    prompt: Prompt,
    max_tokens: int | None = None,
    *,
    prompt_cache: list[Any] | None = None,
    prompt_progress_callback: Progress | None = None,
    options: GenerationOptions | None = None,
    **changes: Any,
) -> Iterator[GenerationResponse]:
    """Decode, yielding the text of every round as it commits.

    prompt: raw text, token ids, or chat messages ({"role", "content"}) for the chat template.
    max_tokens: exact limit (default: 256); -1 stops at the model's context length only.
    prompt_cache: continue it, from `make_prompt_cache(pair)` or mlx-lm's of the same model (then neither the
        drafter nor logits processors see what came before).  Afterwards it holds the prompt and all
        tokens yielded, however the generator ends; until then no other stream can have it.
    prompt_progress_callback: hears (tokens processed, tokens in all) while the prompt is read.
    options: how to answer; `changes` are single ones of GenerationOptions, in place of theirs.  The most used:

    temp, top_p, min_p, top_k, seed: how tokens are drawn; greedy by default.
    sampler: `mlx_ddtree.make_sampler(...)`, or any of mlx-lm's, in their place.
    logits_processors: mlx-lm's; they see each tree node's own path.
    stop: strings that end the text and are not part of it.
    grammar: a Grammar that the answer follows; or json_schema, regex (docs/grammar.md).
    method: 'ddtree', 'dflash' (linear block) or 'ar' (plain decoding).
    tree_budget: 'auto' chooses every round's tree from what rounds cost on this machine (measured for
        some seconds at first use) and how often drafts are right; or nodes without the root, 0..1024.
    block_size: tokens of a block, root included; default: chosen every round, or with a tree budget the
        checkpoint's.
    parity: at temperature 0, 'exact' decides near ties as plain decoding does; 'rows' saves making the
        cache anew where its rounding could decide; 'off' trusts every row.  See decoding/parity.py.
    compression: approximate: a long prompt keeps the tokens that matter for its end (pflash/compress.py).
    kv_keep_ratio: approximate: so many of the prompt's keys and values stay (pflash/kv_filter.py).
    memory: a file whose earlier answers are drafted again where they fit, and which gets this one; or a Memory.
    kv_budget: approximate: context tokens that a layer reads in a round, or all of IceCacheOptions (docs/icecache.md).

    `stream_generate(model, tokenizer, prompt)` works as in mlx-lm, after `model, tokenizer = load(...)`.

    Raises PromptError, OptionError, UnsupportedModelError: all but what depends on the cache's content at
    this call, not when the first response is asked for.
    """
    how = options_of(options, max_tokens, changes)
    ids = prompt_token_ids(pair, prompt)
    check_compression(how)
    how = fit_to_pair(pair, how)
    caches = open_prompt_cache(pair, prompt_cache, drafts=how.method != "ar" and pair.drafter is not None)
    how = fit_to_pair(pair, how, caches)
    check_small_caches(pair, caches, how)
    open_memory(pair, how.memory)
    walk = open_walk(pair, how.make_grammar(), ids)
    answer = _Answer(DecodeState(pair, caches), how, prompt, ids, prompt_progress_callback, walk)
    return _in_turns(pair, answer.stream(prompt_cache))


@dataclass
class _Answer:
    """One call's work: a state, how to answer, the prompt with its ids, and the answer's way through a grammar."""

    state: DecodeState
    options: GenerationOptions
    prompt: Prompt
    ids: list[int]
    progress: Progress | None
    walk: GrammarWalk | None

    def stream(self, prompt_cache: list[Any] | None) -> Iterator[GenerationResponse]:
        """Decode; prompt_cache: what the caller gave, and goes on using afterwards."""
        pair = self.state.pair
        start = len(self.state.token_ids) + len(self.ids)
        with sole_use(prompt_cache), wired_limit(pair.target.model):
            try:
                yield from self._rounds(prompt_cache)
            finally:
                if prompt_cache is not None:
                    self.state.settle()
                memory = open_memory(pair, self.options.memory)
                if memory is not None:
                    memory.remember(self.ids, self.state.token_ids[start:])
                    memory.keep()
                if pair.profile is not None:
                    save_if_worth(pair.profile)

    def _rounds(self, prompt_cache: list[Any] | None) -> Iterator[GenerationResponse]:
        state = self.state
        target = state.pair.target
        options = self.options
        # 1. How rounds draft; what they cost is measured now if it was not yet.
        plan = make_plan(state.pair, options)
        length = state.caches.length  # another call may have gone on with the caches since this one was made
        state.length = length
        keep_caches_small(state, options)
        state.walk = self.walk
        if self.walk is not None:
            self.walk.start = len(state.token_ids) + len(self.ids)
        # 2. What of the prompt is read, and how much may follow it.
        compression = options.make_compression()
        shortening = Shortening.of(
            state, self.prompt, self.ids, compression, options.kv_keep_ratio, prompt_cache, self.progress
        )
        positions = len(self.ids) if shortening is None else shortening.positions
        limit = max_new_tokens(state.pair, options.max_tokens, state.position + positions)
        most = None if limit < 0 else length + len(self.ids) + limit
        paging = make_paging(target, options.make_icecache(), state.caches.target, most)
        text = TextStream(state.pair.tokenizer, limit, options.stop)
        meter = Meter(target, len(self.ids), shortening)
        try:
            with meter.clock("prefill"):
                # 3. The prompt goes into the caches, all but its last token.
                how: dict[str, Any] = {"drafter_later": True} if shortening is None else shortening.prefill_options()
                how["seconds"] = options.prefill_seconds
                prefill(state, self.ids, options.prefill_step_size, self.progress, **how)
                if paging is not None:
                    plan, meter.statistics.reads = paging.begin(state, plan)
                # 4. That token, alone as in mlx-lm, says the answer's first one.
                first = decode_round(state, plan.without_draft(), DraftTree.root, text.keep, Clock())
            if self.progress:
                self.progress(len(self.ids), len(self.ids))
            # 5. The drafter reads the prompt, and the next round begins, while the caller handles the first token.
            if not text.ended:
                read_by_drafter(state)
            rounds = decode_rounds(state, plan, text, meter.clock, first)
            yield meter.response(next(rounds), text)
            with meter.clock("draft"):
                read_by_drafter(state, wait=True)
            # 6. Rounds until the text ends.
            while not text.ended:
                yield meter.response(next(rounds), text)
        finally:
            if paging is not None:
                paging.end()


def _in_turns(pair: Pair, responses: Iterator[GenerationResponse]) -> Iterator[GenerationResponse]:
    """The responses; while one is made, the pair is this stream's alone.

    A target keeps what a forward needs on itself, so streams of several threads take turns, round by round.
    """
    steps = cast("Generator[GenerationResponse, None, None]", responses)
    try:
        while True:
            with pair.lock:
                response = next(steps, None)
            if response is None:
                return
            yield response
    finally:
        with pair.lock:
            steps.close()


@overload
def generate(
    pair: Pair, prompt: Prompt, max_tokens: int | None = None, *, n: None = None, verbose: bool = False, **options: Any
) -> str: ...


@overload
def generate(
    pair: Pair, prompt: Prompt, max_tokens: int | None = None, *, n: int, verbose: bool = False, **options: Any
) -> list[str]: ...


@callable_as_in_mlx_lm
def generate(
    pair: Pair,
    prompt: Prompt,
    max_tokens: int | None = None,
    *,
    n: int | None = None,
    verbose: bool = False,
    **options: Any,
) -> str | list[str]:
    """The whole answer as a string; `options` as for `stream_generate`.

    n: a list of so many answers with consecutive seeds instead, decoded together: the prompt is read once for all of
        them.  `options` as for `mlx_ddtree.stream_branches`.
    verbose: print the text as it grows, and statistics.
    """
    if n is not None and n != 1:
        return generate_branches(pair, prompt, n, max_tokens, **options)
    text, response = "", None
    for response in stream_generate(pair, prompt, max_tokens, **options):
        if verbose:
            print(response.text, end="", flush=True)  # noqa: T201
        text += response.text
    if verbose and response is not None:
        print("\n" + summary(response))  # noqa: T201
    return text if n is None else [text]
