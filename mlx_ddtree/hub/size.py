"""What a model takes, computed from its config.json alone: mlx-lm builds it, and MLX evaluates none of it.

So parameters, quantised bytes (by mlx-lm's own rules for each architecture) and caches are what they will be, for
every architecture that mlx-lm has, in milliseconds and without memory.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache
from mlx_lm.utils import _get_classes, get_total_parameters, quantize_model

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import UnsupportedModelError, one_line
from mlx_ddtree.hub.check_target import check_config

BITS = (4, 8, 16)
"""Usual sizes of a weight: MLX's affine format in groups of 64, and bf16."""
USUAL_TAPS = 5
"""Target layers that a drafter taps."""


@dataclass(frozen=True)
class CacheSize:
    """A target's caches.

    fixed: bytes that they always have.  growing: (bytes a token, tokens at most or None) of each layer that grows.
    """

    fixed: int
    growing: tuple[tuple[int, int | None], ...]

    def bytes(self, tokens: int) -> int:
        """Bytes of the caches of a text of so many tokens."""
        return self.fixed + sum(size * min(tokens, most or tokens) for size, most in self.growing)


@dataclass(frozen=True)
class ModelSize:
    """A target's parameters (as mlx-lm loads it: without vision towers and MTP layers), bytes by bits, and caches."""

    parameters: int
    weights: dict[int, int]
    cache: CacheSize


def model_size(config: Mapping[str, Any]) -> ModelSize:
    """The sizes of a target.  Raises ConfigError or UnsupportedModelError where mlx-lm cannot make the model."""
    return _model_size(json.dumps(config, sort_keys=True))


@lru_cache
def _model_size(config_json: str) -> ModelSize:
    config = json.loads(config_json)
    model = build(config)
    weights = {16: tree_bytes(model)}
    for bits in BITS:
        if bits < 16:
            weights[bits] = weight_bytes(config, bits)
    return ModelSize(get_total_parameters(model), weights, cache_size(model))


def weight_bytes(config: Mapping[str, Any], bits: int) -> int:
    """Bytes of the weights of a target that mlx_lm.convert -q wrote with `bits` bits."""
    with redirect_stdout(io.StringIO()):  # its report is of no interest here
        model, _ = quantize_model(build(config), {}, 64, bits)
    return tree_bytes(model)


def tensors(model: nn.Module) -> dict[str, mx.array]:
    """A module's parameters by name."""
    return dict(tree_flatten(model.parameters()))


def tree_bytes(model: nn.Module) -> int:
    """Bytes of a module's parameters, evaluated or not."""
    return sum(value.nbytes for value in tensors(model).values())


def cache_size(model: nn.Module) -> CacheSize:
    """Bytes of a target's caches in 16 bits: one token through the unevaluated bf16 model gives them their shapes."""
    caches = make_prompt_cache(model)
    model(mx.zeros((1, 1), mx.int32), cache=caches)
    fixed = 0
    growing = []
    for cache in _leaves(caches):
        if getattr(cache, "keys", None) is None:  # a recurrent layer's: as large for one token as for many
            fixed += sum(value.nbytes for value in tree_leaves(cache.state) if isinstance(value, mx.array))
            continue
        bytes_per_token = 0
        for array in (cache.keys, cache.values):  # (1, heads, tokens, channels)
            if array is not None:
                bytes_per_token += array.shape[1] * array.shape[3] * array.dtype.size
        most = cache.max_size if isinstance(cache, RotatingKVCache) else None
        growing.append((bytes_per_token, most))
    return CacheSize(fixed, tuple(growing))


def drafter_parameters(drafter: DFlashDrafter) -> int:
    """Parameters of a drafter, however few bits they are stored in."""
    return sum(value.size for value in tensors(make_drafter(drafter.config, drafter.num_taps)).values())


def drafter_cache_bytes(config: DrafterConfig, tokens: int) -> int:
    """Bytes of a drafter's context: keys and values of every layer in 16 bits."""
    return 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * tokens


def usual_drafter(target_config: Mapping[str, Any]) -> DrafterConfig:
    """The config of a drafter as authors publish them for a target: an estimate where the drafter's own is not known.

    z-lab's have the target's hidden size and heads, five taps, and five layers, or eight where the target has experts.
    """
    nested = target_config.get("text_config")
    text = nested if isinstance(nested, Mapping) else target_config
    hidden = text["hidden_size"]
    heads = text["num_attention_heads"]
    experts = any(text.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    return DrafterConfig.from_dict(
        {
            "hidden_size": hidden,
            "num_hidden_layers": 8 if experts else 5,
            "num_attention_heads": heads,
            "num_key_value_heads": math.gcd(heads, text.get("num_key_value_heads") or heads, 8),
            "head_dim": text.get("head_dim") or hidden // heads,
            "intermediate_size": max(text.get("intermediate_size") or 0, 3 * hidden),
            "vocab_size": text["vocab_size"],
            "rope_theta": 1e6,
            "mask_token_id": 0,
            "target_layer_ids": list(range(USUAL_TAPS)),
        }
    )


def usual_drafter_bytes(config: DrafterConfig) -> int:
    """Bytes of a drafter's weights in 16 bits."""
    return 2 * sum(value.size for value in tensors(make_drafter(config, USUAL_TAPS)).values())


def table_bytes(config: DrafterConfig) -> int:
    """Bytes of an embedding, or of a head, in 16 bits."""
    return 2 * (config.vocab_size or 0) * config.hidden_size


def build(config: Mapping[str, Any]) -> nn.Module:
    """mlx-lm's model in bf16, not evaluated.  Raises ConfigError or UnsupportedModelError where mlx-lm makes none."""
    check_config(config, "config.json")
    try:
        model_class, args_class = _get_classes(dict(config))
        model = model_class(args_class.from_dict(dict(config)))
    except Exception as error:  # theirs are of any type
        raise UnsupportedModelError(f"mlx-lm makes no model of this config.json: {one_line(error)}") from error
    model.set_dtype(mx.bfloat16)
    return model


def tree_leaves(state: Any) -> list[Any]:
    """The arrays of nested lists and dictionaries."""
    return [value for _, value in cast(list[tuple[str, Any]], tree_flatten(state))]


def _leaves(caches: Any) -> list[Any]:
    """All caches, with those that hold several (CacheList) taken apart."""
    leaves: list[Any] = []
    for cache in caches:
        if hasattr(cache, "caches"):
            leaves.extend(_leaves(cache.caches))
        else:
            leaves.append(cache)
    return leaves
