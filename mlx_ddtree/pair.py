"""A target and the drafter that was trained for it."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.drafter.config import default_target_layer_ids
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import PairError, UnsupportedModelError
from mlx_ddtree.target import PlainTarget, Target
from mlx_ddtree.tree.profile import Profile


@dataclass
class Pair:
    """What `load` returns and every decoding function takes.

    drafter: None decodes plainly (method 'ar').
    notes: how the pair was loaded (names, revisions, dtypes), for --verbose.
    kernels: 'auto' uses Metal kernels where they agree with MLX's operations and are faster here, 'on' wherever they
        agree, 'off' never.
    profile: what was measured of it on this machine, once a round needed it.
    scorers: what has scored its prompts, by name (longcontext/scorers.py).
    """

    target: Target
    drafter: DFlashDrafter | None
    tokenizer: TokenizerWrapper
    notes: dict[str, Any] = field(default_factory=dict)
    kernels: str = "auto"
    profile: Profile | None = field(default=None, repr=False)
    scorers: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.drafter is not None:
            self.target.taps = check_pair(self.target, self.drafter)
            inherit_scales(self.target, self.drafter)


def check_pair(target: Target, drafter: DFlashDrafter) -> tuple[int, ...]:
    """The target layers that the drafter taps.  Raises PairError with the reason if they do not fit."""
    if isinstance(target, PlainTarget):
        raise UnsupportedModelError(
            f"model type {target.model_type!r} has no adapter here, so no drafter can be used with it; "
            "load it with draft=False for plain decoding"
        )
    config = drafter.config
    taps = config.target_layer_ids or default_target_layer_ids(target.num_layers, drafter.num_taps)
    problems = []
    if config.hidden_size != target.hidden_size:
        problems.append(f"hidden size {config.hidden_size}, but the target's is {target.hidden_size}")
    if config.vocab_size not in (None, target.vocab_size):
        problems.append(f"vocabulary of {config.vocab_size} tokens, but the target's has {target.vocab_size}")
    if min(taps) < 0 or max(taps) >= target.num_layers:
        problems.append(f"taps layers {taps}, but the target has layers 0..{target.num_layers - 1}")
    if config.mask_token_id >= target.vocab_size:
        problems.append(f"mask token {config.mask_token_id} is outside the target's vocabulary")
    if problems:
        raise PairError(f"this drafter was not made for this target: {'; '.join(problems)}")
    return taps


def inherit_scales(target: Target, drafter: DFlashDrafter) -> None:
    """A drafter speaks through the target's embedding and head: their scale and soft cap are the target's too
    where its config has none of its own."""
    config = drafter.config
    if isinstance(target, PlainTarget):
        return
    scale = target.embed_scale if config.embed_scale == 1.0 else config.embed_scale
    cap = target.logit_softcap if config.logit_softcap is None else config.logit_softcap
    drafter.config = replace(config, embed_scale=scale, logit_softcap=cap)


@dataclass(frozen=True)
class Held:
    """What caches hold of the tokens that they stand for; normally all of them, one row each.

    A prompt may have been compressed (longcontext/): then rows and positions differ from there on.

    gap, drafter_gap: the position of the next token minus the rows, in the target's and in the drafter's caches.
    source: so many first tokens went through a compression; all later ones have their row.
    rows, drafter_rows: the rows that hold those.
    head: so many first tokens are all there, a row each: caches that can be trimmed can go back to them.
    filtered: the first rows of the target's, of which every head has chosen its own (longcontext/kv_filter.py).
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
