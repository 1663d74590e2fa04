"""What every target does with its caches between rounds: make them, copy them, take tokens back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.models.cache import KVCache, QuantizedKVCache, make_prompt_cache, trim_prompt_cache

from mlx_ddtree.errors import OptionError
from mlx_ddtree.target.exchange import Exchange


class MakesCaches:
    """All of it is asked of the target, so that one whose model stands on several machines can do it on all of them
    (distributed/lead.py).

    shards: machines that the model stands on.
    """

    model: nn.Module
    shards: int = 1

    @property
    def exchange(self) -> Exchange | None:
        """What these machines have exchanged so far; None on one."""
        return None

    def on_one_machine(self, what: str) -> None:
        """Raise OptionError if the model stands on several, for what needs all heads of a layer, or reads caches."""
        if self.shards > 1:
            raise OptionError(f"{what} works with a target on one machine, and this one stands on {self.shards}")

    def when_lost(self, tell: Callable[[str], None]) -> None:
        """Have the reason told, before the process ends because one of these machines is gone."""

    def make_cache(self) -> list[Any]:
        return make_prompt_cache(self.model)

    def copy_cache(self, cache: Sequence[Any]) -> list[Any]:
        """Caches that hold the same and go their own way."""
        return deepcopy(list(cache))

    def trim(self, cache: Sequence[Any], rows: int) -> None:
        """Take the last `rows` rows back, of caches that mlx-lm can trim."""
        trim_prompt_cache(list(cache), rows)

    def fit(self, cache: Sequence[Any]) -> None:
        """Give back the memory behind what the caches hold; something that is added copies them once."""
        for layer in cache:
            fit(layer)


def fit(layer: Any) -> None:
    """Of one layer."""
    if isinstance(layer, KVCache | QuantizedKVCache) and layer.keys is not None:
        layer.keys, layer.values = tree_map(lambda x: x[..., : layer.offset, :], (layer.keys, layer.values))
