"""A text's caches, with one owner: the layers of target and drafter, the tokens they stand for, what was left out.

A `PromptCache` is a list as mlx-lm has it, the target's layers before the drafter's, and lives from call to call.
While a stream decodes, its `DecodeState` works on this very object, so nothing has to be copied back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Any

from mlx_ddtree.errors import OptionError
from mlx_ddtree.pair import Pair


@dataclass(frozen=True)
class Coverage:
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


WHOLE = Coverage()
"""Every token has its row."""


class PromptCache(list[Any]):
    """The caches of one text: the target's layers, then the drafter's, in one list as mlx-lm has it.

    target_layers: how many of them are the target's.
    token_ids: the text that they stand for.  While a stream goes on its last token, the root, is not in them yet.
    coverage: how much of that text they hold.
    chunk_ends: tokens of the text, ascending, behind which a chunk of the next prompt ends (generation/turns.py), so
        that it is cut alike wherever its processing begins; empty: every `prefill_step_size` tokens of what is new.
    """

    def __init__(self, layers: Iterable[Any], target_layers: int) -> None:
        super().__init__(layers)
        self.target_layers = target_layers
        self.token_ids: list[int] = []
        self.coverage = WHOLE
        self.chunk_ends: Sequence[int] = ()
        self._lender: list[Any] | None = None

    @classmethod
    def around(cls, layers: list[Any], drafter_layers: Iterable[Any]) -> PromptCache:
        """The caches of a plain list, mlx-lm's own for example, whose earlier tokens nobody knows."""
        cache = cls([*layers, *drafter_layers], len(layers))
        cache._lender = layers
        return cache

    @property
    def target(self) -> list[Any]:
        """The target's layers."""
        return self[: self.target_layers]

    @property
    def drafter(self) -> list[Any]:
        """The drafter's layers; none where nothing drafts."""
        return self[self.target_layers :]

    @property
    def length(self) -> int:
        """Tokens in the target's caches: 0 for models that are recurrent in every layer."""
        return next((int(layer.offset) for layer in self.target if hasattr(layer, "offset")), 0)

    def replace(self, place: int, layer: Any) -> None:
        """Put another cache in a layer's place, also in the list that was given."""
        self[place] = layer
        if self._lender is not None:
            self._lender[place] = layer

    def copy_for(self, pair: Pair) -> PromptCache:
        """A prompt cache that holds the same and goes its own way."""
        copied = PromptCache([*pair.target.copy_cache(self.target), *deepcopy(self.drafter)], self.target_layers)
        copied.token_ids = list(self.token_ids)
        copied.coverage = self.coverage
        return copied


def make_prompt_cache(pair: Pair, *, drafts: bool = True) -> PromptCache:
    """An empty prompt cache for a pair; without the drafter's layers where nothing is to be drafted."""
    target_layers = pair.target.make_cache()
    drafter_layers = pair.drafter.make_cache() if drafts and pair.drafter is not None else []
    return PromptCache([*target_layers, *drafter_layers], len(target_layers))


def open_prompt_cache(pair: Pair, given: list[Any] | None, *, drafts: bool) -> PromptCache:
    """The prompt cache that a call decodes on: what was given, or an empty one.

    given: a PromptCache, or a plain list of the target's layers, with or without the drafter's.

    Raises OptionError if the layers are not this pair's, UnsupportedModelError if they cannot hold a draft tree.
    """
    if given is None:
        cache = make_prompt_cache(pair, drafts=drafts)
    else:
        cache = _checked(pair, given, drafts)
    if drafts:
        pair.target.check_cache(cache.target)
    return cache


def _checked(pair: Pair, given: list[Any], drafts: bool) -> PromptCache:
    target_layers = pair.target.num_caches
    drafter_layers = 0 if pair.drafter is None else len(pair.drafter.layers)
    if len(given) not in (target_layers, target_layers + drafter_layers):
        raise OptionError(
            f"the prompt cache has {len(given)} layers; this pair's has {target_layers + drafter_layers} "
            f"(make_prompt_cache(pair)) or, target only, {target_layers}"
        )
    alone = len(given) == target_layers
    if isinstance(given, PromptCache) and not (alone and drafts):
        return given
    fresh = pair.drafter.make_cache() if alone and drafts and pair.drafter is not None else []
    cache = PromptCache.around(given, fresh)
    cache.target_layers = target_layers
    return cache


_in_use: dict[int, list[Any]] = {}
_in_use_lock = Lock()


@contextmanager
def sole_use(given: list[Any] | None) -> Iterator[None]:
    """Keep every other stream away from these caches.  Raises OptionError where one that is open has them.

    Caches run ahead of the tokens they are known by until a stream ends, so a second one would read half a round.
    """
    if given is None:
        yield
        return
    with _in_use_lock:
        if id(given) in _in_use:
            raise OptionError(
                "this prompt cache belongs to a stream that is still open: read that one to its end or close() it, "
                "or give this call a cache of its own"
            )
        _in_use[id(given)] = given
    try:
        yield
    finally:
        with _in_use_lock:
            del _in_use[id(given)]
