"""Gemma 4's layers in a drafter, as in DeepSpec's Gemma4DSparkModel.

Heads as wide as Gemma's global layers', scores that are not scaled, values through a norm without weights (from the
keys' projection where `attention_k_eq_v`), four norms a layer, and a scalar that multiplies each layer's output.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.qwen3 import MLP

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter, DFlashLayer, Sublayer
from mlx_ddtree.kernels.rope import Positions


class Gemma4Attention(DFlashAttention):
    """Attention with normalised values and a scale of 1."""

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.scale = 1.0
        self.eps = config.rms_norm_eps
        if config.keys_are_values:
            del self.v_proj

    def keys_values(self, x: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        projected = self._split(self.k_proj(x), self.kv_heads)
        values = self._split(self.v_proj(x), self.kv_heads) if "v_proj" in self else projected
        values = mx.fast.rms_norm(values, None, self.eps).transpose(0, 2, 1, 3)
        return self.rope(self.k_norm(projected).transpose(0, 2, 1, 3), offset=offset), values


class GatedGelu(MLP):
    """Qwen3's MLP with Gemma's activation."""

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(nn.gelu_approx(self.gate_proj(x)) * self.up_proj(x))


class Gemma4Layer(DFlashLayer):
    """Norms before and behind both sublayers."""

    attention_type = Gemma4Attention

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.mlp = GatedGelu(config.hidden_size, config.intermediate_size)
        self.pre_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layer_scalar = mx.ones((1,))

    def with_attention(self, block: mx.array, attend: Sublayer) -> mx.array:
        block = block + self.post_attention_layernorm(attend(self.input_layernorm(block)))
        block = block + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(block)))
        return block * self.layer_scalar


class Gemma4Drafter(DFlashDrafter):
    """A drafter of Gemma4Layers."""

    layer_type = Gemma4Layer
