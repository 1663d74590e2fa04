"""Several continuations of one prompt, decoded together: its keys and values are read once a step for all of them.

Every branch has a seed, a drafted tree and a text of its own; one forward verifies all trees (branches/rows.py).  A
draw depends on the seed and the position alone, so each text is what decoding it by itself would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mlx_lm.generate import wired_limit

from mlx_ddtree.branches.forest import Branch, BranchesResponse, Forest
from mlx_ddtree.branches.rows import check_full_attention
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.prefill import Progress, prefill
from mlx_ddtree.decoding.round import Clock
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import TextStream
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.calls import callable_as_in_mlx_lm, options_of
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.planning import fit_to_pair, make_plan, max_new_tokens
from mlx_ddtree.generation.prompts import Prompt, prompt_token_ids
from mlx_ddtree.pair import Pair


@callable_as_in_mlx_lm
def stream_branches(
    pair: Pair,
    prompt: Prompt,
    n: int,
    max_tokens: int | None = None,
    *,
    prompt_progress_callback: Progress | None = None,
    options: GenerationOptions | None = None,
    **changes: Any,
) -> Iterator[BranchesResponse]:
    """Decode n continuations of one prompt; the options are those of `stream_generate`.

    temp, or sampler: a temperature above 0.  Branch i has the seed `seed + i`, and its text is that of
        `stream_generate` with this seed.
    max_tokens, stop: of each branch.
    tree_budget: nodes for each branch; 'auto' shares out what pays among all of them.
    parity: has no effect, since there are no ties between draws.

    For models with full attention in every layer that read all of the prompt; raises UnsupportedModelError for
    others, OptionError, PromptError, at once.
    """
    how = options_of(options, max_tokens, changes)
    pair.target.on_one_machine("decoding several answers together (n, --n)")
    refuse_partial_reading(how)
    samplers = branch_samplers(how.make_sampler(pair.tokenizer), n)
    ids = prompt_token_ids(pair, prompt)
    max_new_tokens(pair, how.max_tokens, len(ids))
    how = fit_to_pair(pair, how)
    if pair.drafter is None:  # branches copy nothing
        how = how.changed(method="ar")
    caches = make_prompt_cache(pair, drafts=how.method != "ar")
    check_full_attention(caches.target)
    how = how.changed(parity="off")
    return _stream(DecodeState(pair, caches), ids, how, samplers, prompt_progress_callback)


def _stream(
    state: DecodeState,
    ids: list[int],
    options: GenerationOptions,
    samplers: list[Sampler],
    report: Progress | None,
) -> Iterator[BranchesResponse]:
    """Read the prompt once, then decode all branches until the last of them ends."""
    pair = state.pair
    plan = make_plan(pair, options)
    limit = max_new_tokens(pair, options.max_tokens, len(ids))
    clock = Clock()
    with wired_limit(pair.target.model):
        with clock("prefill"):
            prefill(state, ids, options.prefill_step_size, report, seconds=options.prefill_seconds)
            branches = []
            for sampler in samplers:
                branches.append(Branch(sampler, TextStream(pair.tokenizer, limit, options.stop)))
            forest = Forest(state, plan, branches, clock)
        if report:
            report(len(ids), len(ids))
        yield forest.response(len(ids))
        while forest.live:
            forest.round()
            yield forest.response(len(ids))


def generate_branches(pair: Pair, prompt: Prompt, n: int, max_tokens: int | None = None, **options: Any) -> list[str]:
    """The n whole texts; `options` as for `stream_branches`."""
    texts = [""] * n
    for response in stream_branches(pair, prompt, n, max_tokens, **options):
        texts = [text + new for text, new in zip(texts, response.texts, strict=True)]
    return texts


def refuse_partial_reading(options: GenerationOptions) -> None:
    """Raise OptionError for options that take something away from the prompt or its caches."""
    asked = {
        "prefill_compression": options.make_compression().mode != "off",
        "kv_keep_ratio": options.kv_keep_ratio is not None,
        "kv_budget": options.kv_budget is not None,
        "max_kv_size": options.max_kv_size is not None,
        "kv_bits": options.kv_bits is not None,
    }
    wrong = [name for name, is_asked in asked.items() if is_asked]
    if wrong:
        raise OptionError(f"several answers at once (n, --n) read all of the prompt: leave out {', '.join(wrong)}")
    if options.make_grammar() is not None:
        raise OptionError(
            "several answers at once (n, --n) follow no grammar: ask for one after the other, with a seed each"
        )


def branch_samplers(sampler: object, n: int) -> list[Sampler]:
    """A sampler for each of n branches, with consecutive seeds.  Raises OptionError."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise OptionError(f"n is {n!r}; use the number of continuations, 1 or more")
    if not isinstance(sampler, Sampler):
        raise OptionError("several continuations need seeds: give temp=..., seed=... or make_sampler(temp, seed=...)")
    if sampler.temp == 0:
        raise OptionError("at temperature 0 all continuations are the same: use n=1, or a temperature above 0")
    return [replace(sampler, seed=sampler.seed + number) for number in range(n)]
