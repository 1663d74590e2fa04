"""The keys of a drafter's attention: heads, rotary embeddings, windows and causality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_ddtree.drafter.config_heads import ASSISTANT, GEMMA4, HeadKeys
from mlx_ddtree.drafter.config_keys import is_above_zero
from mlx_ddtree.errors import ConfigError

ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")


class AttentionKeys(HeadKeys):
    """Published files say each of these things in several ways and places."""

    def heads(self) -> tuple[int, int]:
        """(query heads, key and value heads)."""
        heads = self.size("num_attention_heads")
        kv_heads = self.size("num_key_value_heads", heads)
        if self.architecture == GEMMA4 and self.get("attention_k_eq_v"):
            kv_heads = self.size("num_global_key_value_heads")
        if heads % kv_heads:
            raise ConfigError(f"drafter config.json: 'num_key_value_heads' {kv_heads} does not divide {heads} heads")
        return heads, kv_heads

    def head_dim(self, default: int) -> int:
        return self.size("global_head_dim") if self.architecture == GEMMA4 else self.size("head_dim", default)

    def head_gate(self) -> bool:
        """Whether every head's output has a gate, as in Laguna's layers."""
        said = self.get("gating", default=True)
        if self.layers() != "laguna" or said is False:
            return False
        if said not in (True, "per-head"):
            self.refuse_value("gating", "per-head is")
        return True

    def rope(self) -> tuple[float, dict[str, Any] | None]:
        """(theta, scaling): inside rope_parameters, as transformers prefers, at the top level, or in rope_scaling."""
        parameters = self.typed("object", "rope_parameters", default={})
        if isinstance(parameters.get("full_attention"), Mapping):  # Gemma's, one a kind of layer
            parameters = parameters["full_attention"]
        scaling = self.typed("object", "rope_scaling", default={})
        if not scaling and parameters.get("rope_type", "default") != "default":
            scaling = parameters
        theta = parameters.get("rope_theta") or self.get("rope_theta", default=scaling.get("rope_theta"))
        if theta is None:
            raise ConfigError("drafter config.json: 'rope_theta' is missing (also in rope_parameters and rope_scaling)")
        if not is_above_zero(theta):
            raise ConfigError(f"drafter config.json: 'rope_theta' is {theta!r}, not a number above 0")
        if not scaling:
            return float(theta), None
        return float(theta), self.check_scaling(scaling)

    def rope_is_traditional(self) -> bool:
        """Whether RoPE turns neighbouring channels, as three families of layouts say in three ways."""
        neox = self.get("rope_is_neox_style", "is_neox_style", default=True)
        return bool(self.get("interleaved", default=False)) or neox is False

    def rope_dims(self, head_dim: int) -> int | None:
        """Channels of a head that RoPE turns; None for all.  See known_keys.COPIED."""
        if self.layers() != "qwen3_5":
            return None
        parameters = self.typed("object", "rope_parameters", default={})
        share = parameters.get("partial_rotary_factor", self.get("partial_rotary_factor", default=1.0))
        if not is_above_zero(share) or share > 1:
            raise ConfigError(f"drafter config.json: 'partial_rotary_factor' is {share!r}, not a share of a head")
        return int(head_dim * share)

    def check_scaling(self, scaling: Mapping[str, Any]) -> dict[str, Any]:
        kind = scaling.get("type") or scaling.get("rope_type")
        if kind is None and "factor" not in scaling:
            kind = "default"
        known = ("default", "proportional") if self.architecture == GEMMA4 else ROPE_TYPES
        if kind not in known:
            raise ConfigError(f"drafter config.json: 'rope_type' {kind!r} is not supported: {', '.join(known)}")
        if kind in ("linear", "llama3", "yarn") and not is_above_zero(scaling.get("factor")):
            raise ConfigError(f"drafter config.json: {kind} RoPE needs a number above 0 as 'factor'")
        return dict(scaling)

    def windows(self, layers: int) -> tuple[int | None, ...]:
        """Every layer's window: from a list of windows, a list of layer types, or one window for all or most layers."""
        listed = self.integers("sliding_windows")
        types = self.layer_types()
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

    def layer_types(self) -> list[str] | None:
        """None where `use_swa` overrules types of which none slides, as vLLM has it."""
        types = self.typed("list", "layer_types")
        return None if types and self.get("use_swa") and "sliding_attention" not in types else types

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
            return self.size("swa_window_size", self.get("sliding_window"))
        if self.get("draft_window_size"):
            return self.size("draft_window_size")
        switched_on = self.get("use_sliding_window", default=self.get("sliding_window_pattern") is not None)
        if switched_on and self.get("sliding_window"):
            return self.size("sliding_window")
        return None

    def causality(self, windows: tuple[int | None, ...]) -> tuple[bool, ...]:
        """Said outright, or else causal in sliding layers and bidirectional in full ones.

        A window that `use_swa` gives to all layers says nothing of order, as vLLM has it.
        """
        everywhere = None
        if self.architecture == ASSISTANT or self.get("sliding_window_non_causal"):
            everywhere = False
        elif (said := self.get("dflash_query_causal", "causal", "is_causal", "causal_head")) is not None:
            everywhere = bool(said)
        elif self.get("use_swa") and self.layer_types() is None:
            everywhere = False
        if everywhere is not None:
            return (everywhere,) * len(windows)
        return tuple(window is not None for window in windows)
