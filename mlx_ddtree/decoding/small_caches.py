"""mlx-lm's two ways to keep a target's caches small: a limit on their tokens, and quantised keys and values.

Both change what the model reads, so answers may differ from those without them.  Given them, drafting changes nothing:
caches are quantised behind the same token as in plain decoding, because no round goes past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.models.cache import KVCache, RotatingKVCache

from mlx_ddtree.decoding.context import PromptCache
from mlx_ddtree.errors import OptionError, UnsupportedModelError, one_line
from mlx_ddtree.target import PlainTarget, Target, family_of
from mlx_ddtree.target.attention import asks_its_cache

FIRST_KEPT = 4
"""First tokens that a limited cache never drops, as in mlx_lm.models.cache.make_prompt_cache."""


@dataclass(frozen=True)
class KvQuantization:
    """Quantised keys and values.

    bits, group_size: as in mx.quantize.
    start: tokens in the caches from which on they are quantised.
    """

    bits: int
    group_size: int
    start: int

    def check(self, target: Target, layers: Sequence[Any]) -> None:
        """Raise UnsupportedModelError unless mlx-lm quantises these caches and the model's attention reads them."""
        target.on_one_machine("quantising caches (--kv-bits)")
        family = family_of(target.model)
        if any(isinstance(layer, RotatingKVCache) for layer in layers):
            raise UnsupportedModelError(
                f"mlx-lm cannot quantise caches of limited size, and {family} has some here: leave out kv_bits"
            )
        blocks = [] if isinstance(target, PlainTarget) else target.layers
        if not all(asks_its_cache(block.self_attn) for block in blocks if "self_attn" in block):
            raise UnsupportedModelError(f"{family}'s attention cannot read quantised keys: leave out kv_bits")

    def apply(self, caches: PromptCache) -> None:
        """Quantise the target's layers that are plain.  Raises OptionError where group_size does not divide their size.

        Stopped in the middle, the rest is quantised the next time.
        """
        for place, layer in enumerate(caches.target):
            if type(layer) is not KVCache or layer.empty():
                continue
            try:
                quantized = layer.to_quantized(group_size=self.group_size, bits=self.bits)
            except ValueError as error:
                raise OptionError(
                    f"this model's keys and values cannot be quantised in groups of {self.group_size} "
                    f"(kv_group_size): {one_line(error)}"
                ) from None
            caches.replace(place, quantized)


def check_limit(target: Target, layers: Sequence[Any], max_kv_size: int) -> None:
    """Raise OptionError or UnsupportedModelError unless these caches are limited so, or can be."""
    target.on_one_machine("limiting caches (--max-kv-size)")
    for layer in layers:
        if _is_limited(layer, max_kv_size):
            continue
        if type(layer) is not KVCache:
            raise UnsupportedModelError(
                f"max_kv_size limits plain caches, and {family_of(target.model)} has a {type(layer).__name__} here: "
                "leave it out"
            )
        if not layer.empty():
            raise OptionError(f"these caches were begun without max_kv_size {max_kv_size}: begin with new ones")


def limit(caches: PromptCache, max_kv_size: int) -> None:
    """Put caches that keep `max_kv_size` tokens, the first four among them, in the place of the target's empty ones."""
    for place, layer in enumerate(caches.target):
        if not _is_limited(layer, max_kv_size):
            caches.replace(place, RotatingKVCache(max_kv_size, FIRST_KEPT))


def _is_limited(layer: Any, max_kv_size: int) -> bool:
    return type(layer) is RotatingKVCache and layer.max_size == max_kv_size and layer.keep == FIRST_KEPT
