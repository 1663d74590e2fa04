"""DFlare's layers (AngelSlim): every layer has a mixture of the tapped layers of its own, and projections for it.

context_l = hidden_norm(sum over taps t of softmax(W_l)_t F_t), with keys and values from `k_proj_target` and
`v_proj_target`; the block's rows have the usual projections.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter, DFlashLayer
from mlx_ddtree.kernels.rope import Positions


class DFlareAttention(DFlashAttention):
    """Attention with other projections for context rows than for the block's."""

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        size = self.kv_heads * self.head_dim
        self.k_proj_target = nn.Linear(config.hidden_size, size, bias=config.attention_bias)
        self.v_proj_target = nn.Linear(config.hidden_size, size, bias=config.attention_bias)

    def context_keys_values(self, context: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        keys = self.k_norm(self._split(self.k_proj_target(context), self.kv_heads)).transpose(0, 2, 1, 3)
        values = self._split(self.v_proj_target(context), self.kv_heads).transpose(0, 2, 1, 3)
        return self.rope(keys, offset=offset), values

    def all_keys_values(self, context: mx.array, block: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        new = context.shape[1]
        before, behind = (offset[:, :new], offset[:, new:]) if isinstance(offset, mx.array) else (offset, offset + new)
        pairs = zip(self.context_keys_values(context, before), self.keys_values(block, behind), strict=True)
        keys, values = (mx.concatenate(list(pair), axis=2) for pair in pairs)
        return keys, values


class DFlareLayer(DFlashLayer):
    """A layer of such attention."""

    attention_type = DFlareAttention


class DFlareDrafter(DFlashDrafter):
    """A drafter of DFlareLayers: `layer_fusion_weights` (layers, taps) take the place of `fc`."""

    layer_type = DFlareLayer

    def __init__(self, config: DrafterConfig, taps: int) -> None:
        super().__init__(config, taps)
        del self.fc
        self.layer_fusion_weights = mx.zeros((config.num_hidden_layers, taps))

    def contexts(self, features: mx.array) -> list[mx.array]:
        taps = features.reshape(*features.shape[:2], self.num_taps, self.config.hidden_size)
        shares = mx.softmax(self.layer_fusion_weights.astype(mx.float32), axis=-1).astype(features.dtype)
        mixed = self.hidden_norm(mx.einsum("nmtd,lt->lnmd", taps, shares))
        return list(mixed)
