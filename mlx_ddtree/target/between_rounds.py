"""What every target does with its caches between rounds: make them, copy them, take tokens back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache, trim_prompt_cache

from mlx_ddtree.errors import OptionError
from mlx_ddtree.target.marks import Mark, fit_mark
from mlx_ddtree.target.rank_traffic import RankTraffic


class MakesCaches:
    """A target's work on its caches.

    Callers ask the target and not the caches, so that a target whose model stands on several machines can do the work
    on all of them (distributed/lead.py).

    model: mlx-lm's.
    shards: machines that the model stands on.
    """

    model: nn.Module
    shards: int = 1

    @property
    def rank_traffic(self) -> RankTraffic | None:
        """What these machines have exchanged so far; None on one."""
        return None

    def on_one_machine(self, what: str) -> None:
        """Raise OptionError if the model stands on several, for what needs all heads of a layer, or reads caches."""
        if self.shards > 1:
            raise OptionError(f"{what} works with a target on one machine, and this one stands on {self.shards}")

    def when_lost(self, tell: Callable[[str], None]) -> None:
        """Have the reason told, before the process ends because one of these machines is gone."""

    def make_cache(self) -> list[Any]:
        """Empty caches of mlx-lm's kinds for this model, one a layer."""
        return make_prompt_cache(self.model)

    def copy_cache(self, cache: Sequence[Any]) -> list[Any]:
        """Caches that hold the same and go their own way."""
        return deepcopy(list(cache))

    def trim(self, cache: Sequence[Any], tokens: int) -> None:
        """Take the last `tokens` tokens back, of caches that mlx-lm can trim."""
        trim_prompt_cache(list(cache), tokens)

    def fit_mark(self, cache: Sequence[Any], marked: Mark) -> None:
        """Let a mark of these caches, as they stand now, hold no more than they would go on from."""
        fit_mark(cache, marked)

    def fit(self, cache: Sequence[Any]) -> None:
        """Give back the memory behind what the caches hold; something that is added copies them once."""
        for layer_cache in cache:
            fit(layer_cache)


def fit(layer_cache: Any) -> None:
    """Give back the memory behind what one layer's cache holds; other kinds than key-value caches stay as they are."""
    if isinstance(layer_cache, KVCache | QuantizedKVCache) and layer_cache.keys is not None:
        both = (layer_cache.keys, layer_cache.values)
        layer_cache.keys, layer_cache.values = tree_map(lambda x: x[..., : layer_cache.offset, :], both)
