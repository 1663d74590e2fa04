"""From options to what the rounds need: how to draft, how to choose, and when to stop."""

from __future__ import annotations

import logging

from mlx_ddtree.budget.profile import TRUSTING, ParityBounds, ParityMode
from mlx_ddtree.decoding.context import PromptCache
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampler import MlxLmSampler, Sampler, is_repeatable
from mlx_ddtree.decoding.small_caches import check_limit, limit
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError, PromptError, UnsupportedModelError
from mlx_ddtree.generation.memory import open_memory
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.modes import MESSAGES
from mlx_ddtree.target import PlainTarget
from mlx_ddtree.tuning.choose import mode_of
from mlx_ddtree.tuning.measure import profile_of


def make_plan(pair: Pair, options: GenerationOptions) -> RoundPlan:
    """Check the options against the pair and fill in what was measured of it.

    The options are those that `fit_to_pair` gave.
    """
    sampler = options.make_sampler(pair.tokenizer)
    processors = options.make_logits_processors()
    if options.method == "ar":
        return RoundPlan("ar", 1, 0, sampler, processors)
    memory = open_memory(pair, options.memory)
    others = () if memory is None else (memory.index,)
    bounds = parity_bounds(pair, options.parity, sampler)
    block_size = options.block_size
    tree_budget = options.tree_budget
    if options.method == "dflash":
        tree_budget = "auto" if block_size is None else block_size - 1
    elif block_size is None and tree_budget != "auto":
        block_size = pair.block_size
    if tree_budget == "auto" or mode_of(pair.kernels) != "off":
        profile_of(pair)  # knows what rounds cost and which kernels to use
    return RoundPlan(options.method, block_size, tree_budget, sampler, processors, bounds, others)


def fit_to_pair(pair: Pair, options: GenerationOptions, caches: PromptCache | None = None) -> GenerationOptions:
    """The options as this pair can follow them; without a drafter, a line says once what is used in its place.

    Where a target without a drafter, or the caches given, cannot hold a tree, nothing is drafted: method 'ar'.

    Raises OptionError for a block that the drafter cannot draft.
    """
    if options.method == "ar":
        return options
    if pair.drafter is not None:
        trained = pair.block_size
        if options.block_size is not None and options.block_size > trained:
            raise OptionError(f"block size {options.block_size} is out of range: this drafter takes 2 to {trained}")
        return options
    copies = pair.target.supports_trees
    if caches is not None and copies:
        try:
            pair.target.check_cache(caches.target)
        except UnsupportedModelError:
            copies = False
    say_what_is_used(pair, copies)
    return options if copies else options.changed(method="ar")


def say_what_is_used(pair: Pair, copies: bool) -> None:
    """Tell the user of a pair without a drafter, once, what is used instead, and what would be faster.

    copies: whether what repeats itself is copied, in trees that the target verifies.
    """
    if pair.told:
        return
    pair.told = True
    target = pair.notes.get("target", "this model")
    if copies:
        used = "what repeats itself is copied and verified in trees, the rest decoded plainly"
        help_text = "--draft-model names a drafter, mlx_ddtree.train makes one, --memory FILE remembers answers"
    else:
        why = pair.target.because if isinstance(pair.target, PlainTarget) else ""
        used = f"decoding plainly{why}"
        help_text = "docs/targets.md has which models verify trees"
    logging.getLogger(__name__).warning("no drafter for %s: %s; %s", target, used, help_text)


def check_compression(options: GenerationOptions) -> None:
    """Raise OptionError where messages of a conversation are to be compressed, and there is none."""
    if options.make_compression().mode == MESSAGES:
        raise OptionError(
            "prefill compression 'messages' shortens a conversation's aged messages: use Session, the chat or the "
            "server, or compress the whole prompt ('auto', 'always')"
        )


def check_small_caches(pair: Pair, caches: PromptCache, options: GenerationOptions) -> None:
    """Raise OptionError or UnsupportedModelError where max_kv_size or kv_bits cannot be had with these caches."""
    if options.max_kv_size is not None:
        check_limit(pair.target, caches.target, options.max_kv_size)
    quantization = options.make_quantization()
    if quantization is not None:
        quantization.check(pair.target, caches.target)


def keep_caches_small(state: DecodeState, options: GenerationOptions) -> None:
    """Limit the state's caches by max_kv_size, and have them quantised by kv_bits.  Raises as `check_small_caches`."""
    check_small_caches(state.pair, state.caches, options)
    if options.max_kv_size is not None:
        limit(state.caches, options.max_kv_size)
    state.quantization = options.make_quantization()


def parity_bounds(pair: Pair, parity: ParityMode, sampler: Sampler | MlxLmSampler) -> ParityBounds:
    """Margins below which a choice is a near tie.

    Without a seed that was asked for nothing is guarded above temperature 0: the choice is a draw.
    """
    if parity == "off" or not is_repeatable(sampler):
        return TRUSTING
    bounds = profile_of(pair).parity
    return bounds if parity == "exact" else ParityBounds(bounds.rows)


def max_new_tokens(pair: Pair, max_tokens: int, used: int) -> int:
    """The exact number of tokens after which to stop; -1 is none.

    used: positions that the prompt and the cache before it take.  Raises PromptError where they leave no room.
    """
    limit = pair.target.max_context
    if limit is None:
        return max_tokens
    if used >= limit:
        raise PromptError(f"the prompt needs {used} positions, but this model's context ends at {limit}")
    return limit - used if max_tokens == -1 else min(max_tokens, limit - used)
