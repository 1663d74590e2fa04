"""Rotary embeddings of a target, whose rows stand where the forward says."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.kernels.rope import TreeRope
from mlx_ddtree.target.forward import Forward


class ForwardRope(TreeRope):
    """A TreeRope that moves its rows to the positions of the running forward."""

    def __init__(self, rope: nn.Module, forward: Forward) -> None:
        super().__init__(rope)
        self.forward = forward

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """x: (1, heads, L, head_dim); offset: what the cache says, an int or (1, L) int32 positions."""
        positions = self.forward.positions
        if isinstance(positions, mx.array):
            return super().__call__(x, positions)
        if positions:
            offset = offset + positions
        return super().__call__(x, offset)


def adapt_rope(module: nn.Module, forward: Forward) -> None:
    """Let an attention module's rotary embedding take a position per row; modules without one stay as they are."""
    if "rope" not in module or isinstance(module, TreeRope):
        return
    rope = module.rope.rope if isinstance(module.rope, TreeRope) else module.rope
    module.rope = ForwardRope(rope, forward)
