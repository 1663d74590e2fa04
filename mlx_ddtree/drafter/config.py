"""One tolerant parser for every layout of a DFlash drafter's config.json: v1, DFlash 2 and Meta's assistants.

Published checkpoints put the same facts in different places; the rules below accept all that
were seen and refuse, by name, every key that could change the computation and is not understood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlx_ddtree.drafter.config_keys import ConfigKeys
from mlx_ddtree.errors import ConfigError

GEMMA_MASK_TOKEN = 4
"""Gemma's <mask>; its drafters leave the key out."""

_DFLASH2 = "DFlash2DraftModel"
_ASSISTANT = "MuseGlimmerAssistantModel"
"""Meta's: the v1 network, always bidirectional inside the block."""
_ARCHITECTURES = ("DFlashDraftModel", "DFlashModel", _DFLASH2, _ASSISTANT)
_ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")


@dataclass(frozen=True)
class DFlash2Config:
    """What DFlash 2 adds: the convolutions' taps and channels a group, the selector's rank and candidates."""

    conv_kernel_size: int = 2
    conv_group_size: int = 16
    selector_rank: int = 256
    selector_top_k: int = 16


@dataclass(frozen=True)
class DrafterConfig:
    """What the drafter computes, whatever the file called it.

    vocab_size: None when the file leaves it out (Meta's assistants do); the target's then.
    windows: one entry a layer; None sees the whole context, w sees the last w positions.
    causal: one entry a layer; False is bidirectional inside the block.
    target_layer_ids: None when the file leaves it out (see `default_target_layer_ids`).
    dflash2: None for a v1 drafter.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int | None
    rms_norm_eps: float
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    rope_traditional: bool
    attention_bias: bool
    block_size: int
    mask_token_id: int
    target_layer_ids: tuple[int, ...] | None
    num_target_layers: int | None
    windows: tuple[int | None, ...]
    causal: tuple[bool, ...]
    logit_softcap: float | None = None
    logit_scale: float = 1.0
    embed_scale: float = 1.0
    quantization: dict[str, Any] | None = None
    dflash2: DFlash2Config | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DrafterConfig:
        """Read a config.json.  Raises ConfigError naming the key that is missing or not understood."""
        return _Reader(config).read()

    def describe(self) -> str:
        """One line for --verbose: how the file was read."""
        windows = sorted({"full" if window is None else str(window) for window in self.windows})
        kind = f", DFlash 2 with {self.dflash2.selector_top_k} candidates" if self.dflash2 else ""
        return (
            f"{self.num_hidden_layers} layers, block {self.block_size}, taps {self.target_layer_ids}, "
            f"mask token {self.mask_token_id}, windows {'/'.join(windows)}, "
            f"causal layers {sum(self.causal)}/{len(self.causal)}, rope theta {self.rope_theta:g}{kind}"
        )


def default_target_layer_ids(num_target_layers: int, taps: int) -> tuple[int, ...]:
    """The layers a drafter taps when its config does not say (official rule of DFlash's code)."""
    if taps == 1:
        return (num_target_layers // 2,)
    return tuple(round(1 + i * (num_target_layers - 4) / (taps - 1)) for i in range(taps))


class _Reader(ConfigKeys):
    """The rules by which the layouts' keys become a DrafterConfig."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.architecture = (self.typed("list", "architectures") or _ARCHITECTURES)[0]

    def read(self) -> DrafterConfig:
        self.refuse_unsupported()
        layers = self.size("num_hidden_layers")
        heads, kv_heads = self.heads()
        hidden = self.size("hidden_size")
        theta, scaling = self.rope()
        windows = self.windows(layers)
        return DrafterConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=self.size("head_dim", hidden // heads),
            intermediate_size=self.size("intermediate_size"),
            vocab_size=self.vocab_size(),
            rms_norm_eps=float(self.above_zero("rms_norm_eps") or 1e-6),
            max_position_embeddings=self.integer("max_position_embeddings", 40960),
            rope_theta=theta,
            rope_scaling=scaling,
            rope_traditional=self.rope_is_traditional(),
            attention_bias=bool(self.get("attention_bias", default=False)),
            block_size=self.block_size(),
            mask_token_id=self.mask_token(),
            target_layer_ids=self.target_layer_ids(),
            num_target_layers=self.num_target_layers(),
            windows=windows,
            causal=self.causality(windows),
            logit_softcap=self.above_zero("final_logit_softcapping"),
            logit_scale=float(self.above_zero("output_multiplier") or 1.0),
            embed_scale=float(self.above_zero("input_embedding_scale", "embed_scale") or 1.0),
            quantization=self.typed("object", "quantization", "quantization_config"),
            dflash2=self.dflash2(hidden),
        )

    def refuse_unsupported(self) -> None:
        """Known keys with values for which there is no computation here, and unknown keys."""
        if self.architecture not in _ARCHITECTURES:
            raise ConfigError(
                f"drafter architecture {self.architecture!r} is not supported; known: {', '.join(_ARCHITECTURES)}"
            )
        self.refuse_unknown(self.architecture)
        for key in ("gating", "attention_sink_bias", "projector_type"):
            if self.get(key):
                raise ConfigError(f"drafter config.json: {key!r} = {self.get(key)!r} is not supported")
        if self.get("attention_mode", default="gqa") not in ("gqa", "mha"):
            raise ConfigError(
                f"drafter config.json: 'attention_mode' = {self.get('attention_mode')!r} is not supported"
            )
        activation = self.get("hidden_act", "hidden_activation", default="silu")
        if activation != "silu":
            raise ConfigError(f"drafter config.json: 'hidden_act' = {activation!r} is not supported (silu is)")
        if self.get("draft_vocab_size", default=self.get("vocab_size")) != self.get("vocab_size"):
            raise ConfigError("drafter config.json: 'draft_vocab_size' differs from 'vocab_size': not supported")

    def vocab_size(self) -> int | None:
        if self.architecture == _ASSISTANT and self.get("vocab_size") is None:
            return None
        return self.size("vocab_size")

    def num_target_layers(self) -> int | None:
        if self.get("num_target_layers") is None:
            return None
        return self.size("num_target_layers")

    def target_layer_ids(self) -> tuple[int, ...] | None:
        ids = self.integers("target_layer_ids")
        if not ids:
            return None
        return tuple(layer for layer in ids if layer is not None)

    def dflash2(self, hidden_size: int) -> DFlash2Config | None:
        """The four sizes: all of them in a DFlash 2 drafter, none in another."""
        keys = [field.name for field in fields(DFlash2Config)]
        if self.architecture != _DFLASH2:
            for key in keys:
                if self.get(key):
                    raise ConfigError(f"drafter config.json: {key!r} belongs to {_DFLASH2}, not {self.architecture}")
            return None
        shape = DFlash2Config(**{key: self.size(key) for key in keys})
        if hidden_size % shape.conv_group_size:
            raise ConfigError(
                f"drafter config.json: 'conv_group_size' {shape.conv_group_size} does not divide {hidden_size} channels"
            )
        if shape.selector_top_k > self.size("vocab_size"):
            raise ConfigError(f"drafter config.json: 'selector_top_k' {shape.selector_top_k} exceeds the vocabulary")
        return shape

    def heads(self) -> tuple[int, int]:
        """(query heads, key and value heads)."""
        heads = self.size("num_attention_heads")
        kv_heads = self.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ConfigError(f"drafter config.json: 'num_key_value_heads' {kv_heads} does not divide {heads} heads")
        return heads, kv_heads

    def block_size(self) -> int:
        default = 8 if self.architecture == _DFLASH2 else 16
        size = self.integer("block_size", default)
        if size < 2:
            raise ConfigError(f"drafter config.json: 'block_size' is {size}; a block holds the bonus token and a draft")
        return size

    def mask_token(self) -> int:
        gemma = str(self.get("model_type", default="")).startswith("gemma")
        default = GEMMA_MASK_TOKEN if gemma else None
        return self.integer("mask_token_id", default)

    def rope(self) -> tuple[float, dict[str, Any] | None]:
        """(theta, scaling): at the top level, inside rope_parameters, or inside rope_scaling."""
        parameters = self.typed("object", "rope_parameters", default={})
        scaling = self.typed("object", "rope_scaling", default={})
        if not scaling and parameters.get("rope_type", "default") != "default":
            scaling = parameters
        theta = self.get("rope_theta", default=parameters.get("rope_theta", scaling.get("rope_theta")))
        if theta is None:
            raise ConfigError("drafter config.json: 'rope_theta' is missing (also in rope_parameters and rope_scaling)")
        if not _is_above_zero(theta):
            raise ConfigError(f"drafter config.json: 'rope_theta' is {theta!r}, not a number above 0")
        if not scaling:
            return float(theta), None
        return float(theta), self.check_scaling(scaling)

    def rope_is_traditional(self) -> bool:
        """Whether RoPE turns neighbouring channels, as two families of layouts say in two ways."""
        return bool(self.get("interleaved", default=False)) or self.get("rope_is_neox_style", default=True) is False

    def check_scaling(self, scaling: Mapping[str, Any]) -> dict[str, Any]:
        kind = scaling.get("type") or scaling.get("rope_type")
        if kind is None and "factor" not in scaling:
            kind = "default"
        if kind not in _ROPE_TYPES:
            raise ConfigError(f"drafter config.json: 'rope_type' {kind!r} is not supported: {', '.join(_ROPE_TYPES)}")
        if kind in ("linear", "llama3", "yarn") and not _is_above_zero(scaling.get("factor")):
            raise ConfigError(f"drafter config.json: {kind} RoPE needs a number above 0 as 'factor'")
        return dict(scaling)

    def windows(self, layers: int) -> tuple[int | None, ...]:
        """Every layer's window: from a list of windows, a list of layer types, or one window for all or most layers."""
        listed = self.integers("sliding_windows")
        types = self.typed("list", "layer_types")
        if listed is not None:
            result = listed[:]
            for layer, window in enumerate(listed):
                if window is not None and window <= 0:  # another way to say that the layer has none
                    result[layer] = None
        elif types is not None:
            result = [self.window_of_type(layer_type) for layer_type in types]
        else:
            result = [self.window_of_all()] * layers
            if self.get("sliding_window_pattern") is not None:  # every so many layers, one sees everything
                pattern = self.size("sliding_window_pattern")
                result[pattern - 1 :: pattern] = [None] * (layers // pattern)
        if len(result) != layers:
            raise ConfigError(f"drafter config.json: {len(result)} layer types or windows for {layers} layers")
        return tuple(result)

    def window_of_type(self, layer_type: str) -> int | None:
        if layer_type == "full_attention":
            return None
        if layer_type != "sliding_attention":
            raise ConfigError(f"drafter config.json: layer type {layer_type!r} is not supported")
        if self.get("sliding_window") is None:
            return self.size("swa_window_size")
        return self.size("sliding_window")

    def window_of_all(self) -> int | None:
        """A window for every layer: only where the file switches it on, since Qwen3's configs carry
        `sliding_window` beside `use_sliding_window: false`."""
        if self.get("use_swa"):
            return self.size("swa_window_size")
        if self.get("draft_window_size"):
            return self.size("draft_window_size")
        switched_on = self.get("use_sliding_window", default=self.get("sliding_window_pattern") is not None)
        if switched_on and self.get("sliding_window"):
            return self.size("sliding_window")
        return None

    def causality(self, windows: tuple[int | None, ...]) -> tuple[bool, ...]:
        """Said outright, or else causal in sliding layers and bidirectional in full ones."""
        if self.architecture == _ASSISTANT:
            return (False,) * len(windows)
        said = self.get("dflash_query_causal", "causal", "is_causal")
        if said is not None:
            return (bool(said),) * len(windows)
        return tuple(window is not None for window in windows)


def _is_above_zero(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
