"""stream_generate and generate: the loop over rounds, and what callers see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, overload

import mlx.core as mx
from mlx_lm.generate import wired_limit

from mlx_ddtree.decoding.adaptive import adaptive_rounds
from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.context import WHOLE, PromptCache, split_cache
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import Progress, prefill
from mlx_ddtree.decoding.round import Round, decode_round, rounds
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import TextStream
from mlx_ddtree.generation.branches import generate_branches
from mlx_ddtree.generation.calls import callable_as_in_mlx_lm, options_of
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.planning import check_drafting, make_plan, max_new_tokens
from mlx_ddtree.generation.prompts import Prompt, prompt_token_ids
from mlx_ddtree.generation.shorten import Shortening
from mlx_ddtree.generation.statistics import RoundStatistics
from mlx_ddtree.icecache.paging import make_paging
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import CompressionReport
from mlx_ddtree.target import Target
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tuning.store import save_if_worth


@dataclass
class GenerationResponse:
    """One round's output; mlx-lm's fields, and the round's statistics.

    text: the next piece of text; may be empty.
    tokens: ids committed in this round, an end token included.
    token: the last of them.
    logprobs: (len(tokens), V), what the tokens were chosen from; computed when first used.
    from_draft: whether the drafter had proposed the first of them.
    acceptance_length: tokens this round emits unless the text ends: accepted nodes + 1.
    nodes, depth: size and depth of this round's draft tree, root excluded.
    rounds: rounds so far; the first token comes from the prompt's own forward and counts as none.
    kind: of this round: 'draft', 'lookup' (a copied continuation), 'plain', or 'tie' (a near tie that a
        row of its own decided).
    statistics: counts over the rounds so far.
    seconds: wall time by stage so far: prefill, draft, tree, verify, commit.
    compression: what the prompt has lost, where it was to be compressed or filtered.
    peak_memory: gigabytes.
    finish_reason: 'length', 'stop' or None.
    round: the round itself, with its tree and the accepted path (`mlx_ddtree.draw_tree`).
    """

    text: str
    tokens: list[int]
    token: int
    logprobs: mx.array
    from_draft: bool
    prompt_tokens: int
    prompt_tps: float
    generation_tokens: int
    generation_tps: float
    peak_memory: float
    acceptance_length: int
    nodes: int
    depth: int
    rounds: int
    kind: str
    statistics: RoundStatistics
    seconds: dict[str, float]
    round: Round = field(repr=False)
    finish_reason: str | None = None
    compression: CompressionReport | None = None

    @property
    def mean_acceptance_length(self) -> float:
        """tau: tokens per round so far."""
        return (self.generation_tokens - 1) / self.rounds if self.rounds else 1.0


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
    prompt_cache: continue it, from `make_prompt_cache(pair)` or mlx-lm's of the same model (then
        the drafter does not see what came before).  Afterwards it holds the prompt and all
        tokens yielded, however the generator ends.
    prompt_progress_callback: hears (tokens processed, tokens in all) while the prompt is read.
    options: how to answer; `changes` are single ones of GenerationOptions, in place of theirs.  The most used:

    temp, top_p, min_p, top_k, seed: how tokens are drawn; greedy by default.
    sampler: `mlx_ddtree.make_sampler(...)`, or any of mlx-lm's, in their place.
    logits_processors: mlx-lm's; they see each tree node's own path.
    stop: strings that end the text and are not part of it.
    method: 'ddtree', 'dflash' (linear block) or 'ar' (plain decoding).
    tree_budget: 'auto' chooses every round's tree from what rounds cost on this machine (measured once)
        and how often drafts are right; or nodes without the root, 0..1024.
    block_size: tokens of a block, root included; default: chosen every round, or with a tree budget the
        checkpoint's.
    parity: at temperature 0, 'exact' decides near ties as plain decoding does; 'rows' saves making the
        cache anew where its rounding could decide; 'off' trusts every row.  See decoding/parity.py.
    compression: approximate: a long prompt keeps the tokens that matter for its end (pflash/compress.py).
    kv_keep_ratio: approximate: so many of the prompt's keys and values stay (pflash/kv_filter.py).
    kv_budget: approximate: context tokens that a layer reads in a round, or all of IceCacheOptions (docs/icecache.md).

    `stream_generate(model, tokenizer, prompt)` works as in mlx-lm, after `model, tokenizer = load(...)`.

    Raises PromptError, OptionError, PairError, UnsupportedModelError; what is wrong with prompt and options, at once.
    """
    how = options_of(options, max_tokens, changes)
    ids = prompt_token_ids(pair, prompt)
    if how.method != "ar":
        check_drafting(pair, how)
    return _stream(pair, prompt, ids, how, prompt_cache, prompt_progress_callback)


def _stream(
    pair: Pair,
    prompt: Prompt,
    ids: list[int],
    options: GenerationOptions,
    prompt_cache: list[Any] | None,
    prompt_progress_callback: Progress | None,
) -> Iterator[GenerationResponse]:
    plan = make_plan(pair, options)
    target_cache, drafter_cache, length = split_cache(pair, prompt_cache, options.method)
    state = DecodeState(pair, target_cache, drafter_cache, length, None, held=getattr(prompt_cache, "held", WHOLE))
    shortening = Shortening.of(
        state,
        prompt,
        ids,
        options.make_compression(),
        options.kv_keep_ratio,
        prompt_cache,
        prompt_progress_callback,
    )
    limit = max_new_tokens(
        pair, options.max_tokens, state.position + (shortening.positions if shortening else len(ids))
    )
    rows = None if limit < 0 else length + len(ids) + limit  # at most
    paging = make_paging(pair.target, options.make_icecache(), target_cache, rows)
    text = TextStream(pair.tokenizer, limit, options.stop)
    meter = _Meter(pair.target, len(ids), shortening)
    with wired_limit(pair.target.model):
        try:
            with meter.clock("prefill"):
                kept = shortening.prefill_options() if shortening else {}
                prefill(state, ids, options.prefill_step_size, prompt_progress_callback, **kept)
                if paging is not None:
                    plan = paging.begin(state, plan, prompt_cache, meter.statistics)
                first = decode_round(state, plan.without_draft(), DraftTree.root, text.keep, Clock())
            if prompt_progress_callback:
                prompt_progress_callback(len(ids), len(ids))
            yield meter.response(first, text)
            following = rounds_of(plan)(state, plan, text.keep, meter.clock)
            while text.finish_reason is None:
                yield meter.response(next(following), text)
        finally:
            if paging is not None:
                paging.end()
            _hand_back(state, prompt_cache)


def _hand_back(state: DecodeState, prompt_cache: list[Any] | None) -> None:
    """The caches hold everything emitted, and what the rounds taught is kept."""
    if prompt_cache is not None:
        state.settle()
    if isinstance(prompt_cache, PromptCache):
        prompt_cache.took(state.token_ids, state.held)
    if state.pair.profile is not None:
        save_if_worth(state.pair.profile)


def rounds_of(plan: RoundPlan) -> Callable[..., Iterator[Round]]:
    """The loop that the plan asks for."""
    if plan.method == "ar":
        return plain_rounds
    return adaptive_rounds if plan.adaptive else rounds


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


def summary(response: GenerationResponse) -> str:
    """mlx-lm's closing lines, and the acceptance length."""
    return (
        f"{'=' * 10}\n"
        f"Prompt: {response.prompt_tokens} tokens, {response.prompt_tps:.3f} tokens-per-sec\n"
        f"Generation: {response.generation_tokens} tokens, {response.generation_tps:.3f} tokens-per-sec\n"
        f"Rounds: {response.rounds}, acceptance length {response.mean_acceptance_length:.2f}\n"
        f"{response.statistics.lines()}\n"
        f"Peak memory: {response.peak_memory:.3f} GB"
        + (f"\n{response.compression.lines()}" if response.compression else "")
    )


class _Meter:
    """Counts and times rounds.  Generation time starts when the first token is there, as in mlx-lm."""

    def __init__(self, target: Target, prompt_tokens: int, shortening: Shortening | None) -> None:
        self.clock = Clock()
        self._target, self._exchanged = target, target.exchange
        self._shortening = shortening
        self.rounds, self.tokens, self._tidied = -1, 0, 0
        self.statistics = RoundStatistics()
        self._prompt_tokens = prompt_tokens
        self._start = 0.0

    def response(self, done: Round, text: TextStream) -> GenerationResponse:
        if self.tokens // 256 > self._tidied:  # gives unused memory back, as mlx-lm does
            self._tidied = self.tokens // 256
            mx.clear_cache()
        self.rounds += 1
        self.tokens += len(done.token_ids)
        if self.rounds == 0:
            self._start = perf_counter()
            if self._shortening is not None:
                self._shortening.first_token(self.clock.seconds)
        else:
            self.statistics.add(done)
        if self._exchanged is not None and (exchange := self._target.exchange) is not None:
            self.statistics.exchange = exchange.since(self._exchanged)
        log_probs = done.logits - mx.logsumexp(done.logits, axis=-1, keepdims=True)
        return GenerationResponse(
            text=text.take(),
            tokens=done.token_ids,
            token=done.token_ids[-1],
            logprobs=log_probs,
            from_draft=done.accepted > 0,
            prompt_tokens=self._prompt_tokens,
            prompt_tps=self._prompt_tokens / (self.clock.seconds["prefill"] + self.clock.seconds.get("score", 0.0)),
            generation_tokens=self.tokens,
            generation_tps=self.tokens / (perf_counter() - self._start),
            peak_memory=mx.get_peak_memory() / 1e9,
            acceptance_length=done.accepted + 1,
            nodes=done.nodes,
            depth=int(done.tree.depths.max()),
            rounds=self.rounds,
            kind=done.kind,
            statistics=self.statistics,
            seconds=dict(self.clock.seconds),
            round=done,
            finish_reason=text.finish_reason,
            compression=self._shortening.report if self._shortening else None,
        )
