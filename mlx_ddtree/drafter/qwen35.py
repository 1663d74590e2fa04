"""Qwen3.5's own layers in a drafter (Ornith's): a gate on attention's output, RoPE on a part of a head, norms 1 + w."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter, DFlashLayer
from mlx_ddtree.kernels.rope import Positions


class OffsetNorm(nn.Module):
    """RMSNorm whose stored weight is what is added to 1."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.zeros((size,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, 1 + self.weight, self.eps)


class Qwen35Attention(DFlashAttention):
    """`q_proj` gives every head its query and, behind it, a gate: what the head reads times sigmoid(gate)."""

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        size = 2 * self.heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, size, bias=config.attention_bias)

    def queries(self, x: mx.array, offset: Positions) -> mx.array:
        queries = self._split(self.q_proj(x), self.heads)[..., : self.head_dim]
        return self.rope(self.q_norm(queries).transpose(0, 2, 1, 3), offset=offset)

    def output(self, attended: mx.array, block: mx.array) -> mx.array:
        gate = self._split(self.q_proj(block), self.heads)[..., self.head_dim :]
        return super().output(attended * mx.sigmoid(gate.reshape(attended.shape)), block)


class Qwen35Layer(DFlashLayer):
    """A layer of such attention."""

    attention_type = Qwen35Attention


class Qwen35Drafter(DFlashDrafter):
    """A drafter of Qwen35Layers, all of whose norms are OffsetNorms."""

    layer_type = Qwen35Layer

    def __init__(self, config: DrafterConfig, taps: int) -> None:
        super().__init__(config, taps)

        def offset(module: nn.Module) -> nn.Module:
            is_norm = isinstance(module, nn.RMSNorm)
            return OffsetNorm(module.weight.size, module.eps) if is_norm else module

        self.update_modules(tree_map(offset, self.leaf_modules(), is_leaf=nn.Module.is_module))
