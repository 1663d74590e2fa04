"""Layers of Poolside's Laguna drafters, as in vLLM's and SGLang's DFlashLagunaForCausalLM.

Tapped layers are normalised one by one before they are joined, context rows pass through each layer's input norm, and
what a head reads is multiplied by softplus(g), g a projection of the row that asked.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter, DFlashLayer


class LagunaAttention(DFlashAttention):
    """Attention whose heads have gates."""

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.gated = config.head_gate
        if self.gated:
            self.g_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    def output(self, attended: mx.array, block: mx.array) -> mx.array:
        if not self.gated:
            return super().output(attended, block)
        gate = nn.softplus(self.g_proj(block).astype(mx.float32)).astype(attended.dtype)
        by_head = attended.reshape(*attended.shape[:2], self.heads, -1) * gate[..., None]
        return super().output(by_head.reshape(attended.shape), block)


class LagunaLayer(DFlashLayer):
    """A layer of gated attention."""

    attention_type = LagunaAttention


class LagunaDrafter(DFlashDrafter):
    """A drafter of LagunaLayers, with a norm for every tapped layer."""

    layer_type = LagunaLayer

    def __init__(self, config: DrafterConfig, taps: int) -> None:
        super().__init__(config, taps)
        self.aux_hidden_norms = [nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps) for _ in range(taps)]

    def context(self, features: mx.array) -> mx.array:
        taps = mx.split(features, self.num_taps, axis=-1)
        normed = [norm(tap) for norm, tap in zip(self.aux_hidden_norms, taps, strict=True)]
        return super().context(mx.concatenate(normed, axis=-1))

    def contexts(self, features: mx.array) -> list[mx.array]:
        context = self.context(features)
        return [layer.input_layernorm(context) for layer in self.layers]
