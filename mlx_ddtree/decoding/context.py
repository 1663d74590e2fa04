"""A text's caches between calls: the target's and the drafter's layers, and what they hold of the text."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.pair import Pair


@dataclass(frozen=True)
class Held:
    """What caches hold of the tokens that they stand for; normally all of them, one row each.

    A prompt may have been compressed (pflash/): then rows and positions differ from there on.

    gap, drafter_gap: the position of the next token minus the rows, in the target's and in the drafter's caches.
    source: so many first tokens went through a compression; all later ones have their row.
    rows, drafter_rows: the rows that hold those.
    head: so many first tokens are all there, a row each: caches that can be trimmed can go back to them.
    filtered: the first rows of the target's, of which every head has chosen its own (pflash/kv_filter.py).
    """

    gap: int = 0
    drafter_gap: int = 0
    source: int = 0
    rows: int = 0
    drafter_rows: int = 0
    head: int = 0
    filtered: int = 0


WHOLE = Held()


class PromptCache(list[Any]):
    """The target's layers, then the drafter's, in one list as mlx-lm has it.

    token_ids: what they stand for; held: what of it they hold.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        super().__init__(layers)
        self.token_ids: list[int] = []
        self.held = WHOLE

    def took(self, token_ids: Iterable[int], held: Held) -> None:
        """They hold more now."""
        self.token_ids += token_ids
        self.held = held


def make_prompt_cache(pair: Pair) -> PromptCache:
    """An empty prompt cache."""
    drafter_cache = [] if pair.drafter is None else pair.drafter.make_cache()
    return PromptCache([*pair.target.make_cache(), *drafter_cache])


def copy_prompt_cache(pair: Pair, cache: PromptCache) -> PromptCache:
    """A prompt cache that holds the same and goes its own way."""
    layers = pair.target.num_caches
    copied = PromptCache([*pair.target.copy_cache(cache[:layers]), *deepcopy(cache[layers:])])
    copied.took(cache.token_ids, cache.held)
    return copied


def split_cache(pair: Pair, cache: list[Any] | None, method: str) -> tuple[list[Any], list[Any], int]:
    """(target's layers, drafter's layers, tokens in the target's cache) of a prompt cache."""
    drafter_layers = 0 if pair.drafter is None else len(pair.drafter.layers)
    drafts = method != "ar" and pair.drafter is not None
    if cache is None:
        target_cache = pair.target.make_cache()
        drafter_cache = pair.drafter.make_cache() if drafts and pair.drafter else []
    else:
        layers = pair.target.num_caches
        if len(cache) not in (layers, layers + drafter_layers):
            raise OptionError(
                f"the prompt cache has {len(cache)} layers; this pair's has {layers + drafter_layers} "
                f"(make_prompt_cache(pair)) or, target only, {layers}"
            )
        target_cache, drafter_cache = cache[:layers], cache[layers:]
        if drafts and not drafter_cache and pair.drafter:
            drafter_cache = pair.drafter.make_cache()
    if drafts:
        pair.target.check_cache(target_cache)
    if drafts and not pair.target.supports_trees:
        raise UnsupportedModelError(f"this target cannot verify drafts; use method='ar' instead of {method!r}")
    length = next((c.offset for c in target_cache if hasattr(c, "offset")), 0)
    return target_cache, drafter_cache, int(length)
