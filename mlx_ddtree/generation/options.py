"""From what a caller gives to what the rounds need; every refusal of bad input is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.sample_utils import LogitsProcessor

from mlx_ddtree.budget.profile import TRUSTING, ParityBounds
from mlx_ddtree.decoding.parity import PARITY_MODES, ParityMode
from mlx_ddtree.decoding.plan import Auto, RoundPlan
from mlx_ddtree.decoding.sampling import MlxLmSampler, Sampler, is_repeatable
from mlx_ddtree.errors import OptionError, PairError, PromptError
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree.build import MAX_BUDGET
from mlx_ddtree.tuning.choose import mode_of
from mlx_ddtree.tuning.measure import profile_of

METHODS = ("ddtree", "dflash", "ar")
Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]] | mx.array


def make_plan(
    pair: Pair,
    method: str,
    tree_budget: int | Auto,
    block_size: int | None,
    sampler: Sampler | MlxLmSampler | None,
    processors: Sequence[LogitsProcessor],
    parity: ParityMode = "exact",
) -> RoundPlan:
    """Check the options against the pair and fill in what was measured of it."""
    if method not in METHODS:
        raise OptionError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    sampler = sampler if sampler is not None else Sampler()
    if method == "ar":
        return RoundPlan("ar", 1, 0, sampler, processors)
    if pair.drafter is None:
        raise PairError(f"method {method!r} needs a drafter and this pair has none; load one or use method='ar'")
    trained = pair.drafter.config.block_size
    if block_size is not None and not 2 <= block_size <= trained:
        raise OptionError(f"block size {block_size} is out of range: this drafter takes 2 to {trained}")
    if tree_budget != "auto" and not (isinstance(tree_budget, int) and 0 <= tree_budget <= MAX_BUDGET):
        raise OptionError(
            f"tree budget {tree_budget!r} is out of range: use 'auto', or 0 (no draft) to {MAX_BUDGET} nodes"
        )
    bounds = parity_bounds(pair, parity, sampler)
    if method == "dflash":
        tree_budget = "auto" if block_size is None else block_size - 1
    elif block_size is None and tree_budget != "auto":
        block_size = trained
    if tree_budget == "auto" or mode_of(pair.kernels) != "off":
        profile_of(pair)  # knows what rounds cost and which kernels to use
    return RoundPlan(method, block_size, tree_budget, sampler, processors, bounds)


def parity_bounds(pair: Pair, parity: ParityMode, sampler: Sampler | MlxLmSampler) -> ParityBounds:
    """Without a seed that was asked for there is nothing to guard above temperature 0: the choice is a draw."""
    if parity not in PARITY_MODES:
        raise OptionError(f"unknown parity mode {parity!r}; choose one of {', '.join(PARITY_MODES)}")
    if parity == "off" or not is_repeatable(sampler):
        return TRUSTING
    bounds = profile_of(pair).parity
    return bounds if parity == "exact" else ParityBounds(bounds.rows)


def prompt_token_ids(pair: Pair, prompt: Prompt) -> list[int]:
    """Raw text, ids, or chat messages -> ids.  Raises PromptError."""
    items: Any = prompt.tolist() if isinstance(prompt, mx.array) else prompt
    if isinstance(items, str):
        bos = pair.tokenizer.bos_token
        ids = pair.tokenizer.encode(items, add_special_tokens=bos is None or not items.startswith(bos))
    elif len(items) and all(isinstance(item, Mapping) for item in items):
        if not pair.tokenizer.has_chat_template:
            raise PromptError("this tokenizer has no chat template: give the prompt as text or token ids")
        ids = pair.tokenizer.apply_chat_template(list(items), add_generation_prompt=True)
    else:
        ids = list(items)
    if not ids:
        raise PromptError("the prompt is empty: give at least one token")
    vocab_size = pair.target.args.vocab_size
    if not all(isinstance(i, int) and 0 <= i < vocab_size for i in ids):
        raise PromptError(f"the prompt has token ids outside the vocabulary (0..{vocab_size - 1})")
    return ids


def max_new_tokens(pair: Pair, max_tokens: int, used: int) -> int:
    """The exact number of tokens after which to stop; `used` are the prompt's and the cache's."""
    if max_tokens == 0 or max_tokens < -1:
        raise OptionError(f"max_tokens is {max_tokens}; use a positive number, or -1 for no limit")
    limit = pair.target.max_context
    if limit is None:
        return max_tokens
    if used >= limit:
        raise PromptError(f"the prompt needs {used} positions, but this model's context ends at {limit}")
    return limit - used if max_tokens == -1 else min(max_tokens, limit - used)
