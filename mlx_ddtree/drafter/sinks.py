"""Layers with attention sinks and scaled values: Xiaomi's MiMo and NVIDIA's Nemotron drafters.

A sink is a logit a head that joins the softmax of every row and has no value.  MiMo's reference (vLLM's qwen3_dflash)
multiplies values by `attention_value_scale`.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter, DFlashLayer
from mlx_ddtree.kernels.rope import Positions


class SinkAttention(DFlashAttention):
    """Attention with sinks, values times `value_scale`, or both."""

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.value_scale = config.value_scale
        self.has_sinks = config.sinks
        if config.sinks:
            self.attention_sink_bias = mx.zeros((self.heads,))

    @property
    def sinks(self) -> mx.array | None:  # type: ignore[override]
        return self.attention_sink_bias.astype(self.q_norm.weight.dtype) if self.has_sinks else None

    def keys_values(self, x: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        keys, values = super().keys_values(x, offset)
        return keys, values * self.value_scale


class SinkLayer(DFlashLayer):
    """A layer of such attention."""

    attention_type = SinkAttention


class SinkDrafter(DFlashDrafter):
    """A drafter of SinkLayers."""

    layer_type = SinkLayer
