"""Several continuations of one prompt, decoded together: its keys and values are read once a step for all of them.

Every branch has a seed, a drafted tree and a text of its own; one forward verifies all trees (branches/rows.py).  A
draw depends on the seed and the position alone, so each text is what decoding it by itself would give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mlx_lm.generate import wired_limit
from mlx_lm.sample_utils import LogitsProcessor

from mlx_ddtree.branches.forest import Branch, BranchesResponse, Forest
from mlx_ddtree.branches.rows import check_full_attention
from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.plan import Auto
from mlx_ddtree.decoding.prefill import Progress, prefill
from mlx_ddtree.decoding.sampling import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import TextStream
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.options import Prompt, make_plan, max_new_tokens, prompt_token_ids
from mlx_ddtree.pair import Pair


def stream_branches(
    pair: Pair,
    prompt: Prompt,
    n: int,
    max_tokens: int = 256,
    *,
    method: str = "ddtree",
    tree_budget: int | Auto = "auto",
    block_size: int | None = None,
    sampler: Sampler,
    logits_processors: Sequence[LogitsProcessor] = (),
    stop: Sequence[str] = (),
    prefill_step_size: int = 2048,
    prompt_progress_callback: Progress | None = None,
) -> Iterator[BranchesResponse]:
    """Decode n continuations of one prompt; the options are those of `stream_generate`.

    sampler: of a temperature above 0.  Branch i has the seed `sampler.seed + i`, and its text is that of
        `stream_generate` with this seed.
    max_tokens, stop: of each branch.
    tree_budget: nodes for each branch; 'auto' shares out what pays among all of them.

    For models with full attention in every layer; raises UnsupportedModelError for others, OptionError, PromptError.
    """
    pair.target.on_one_machine("decoding several answers together (n, --n)")
    samplers = branch_samplers(sampler, n)
    plan = make_plan(pair, method, tree_budget, block_size, sampler, logits_processors, "off")
    ids = prompt_token_ids(pair, prompt)
    caches = make_prompt_cache(pair, drafts=method != "ar")
    check_full_attention(caches.target)
    limit = max_new_tokens(pair, max_tokens, len(ids))
    clock = Clock()
    state = DecodeState(pair, caches)
    with wired_limit(pair.target.model):
        with clock("prefill"):
            prefill(state, ids, prefill_step_size, prompt_progress_callback)
            texts = [TextStream(pair.tokenizer, limit, stop) for _ in samplers]
            forest = Forest(state, plan, [Branch(*both) for both in zip(samplers, texts, strict=True)], clock)
        if prompt_progress_callback:
            prompt_progress_callback(len(ids), len(ids))
        yield forest.response(len(ids))
        while forest.live:
            forest.round()
            yield forest.response(len(ids))


def generate_branches(pair: Pair, prompt: Prompt, n: int, max_tokens: int = 256, **options: object) -> list[str]:
    """The n whole texts; `options` as for `stream_branches`."""
    texts = [""] * n
    for response in stream_branches(pair, prompt, n, max_tokens, **options):  # type: ignore[arg-type]
        texts = [text + new for text, new in zip(texts, response.texts, strict=True)]
    return texts


def branch_samplers(sampler: object, n: int) -> list[Sampler]:
    """The seeds are consecutive.  Raises OptionError."""
    if n < 1:
        raise OptionError(f"n is {n}; use the number of continuations, 1 or more")
    if not isinstance(sampler, Sampler):
        raise OptionError("several continuations need seeds: give sampler=make_sampler(temp, seed=...)")
    if sampler.temp == 0:
        raise OptionError("at temperature 0 all continuations are the same: use n=1, or a temperature above 0")
    return [replace(sampler, seed=sampler.seed + i) for i in range(n)]
