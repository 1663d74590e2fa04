"""RoPE with one position per row: tree nodes of equal depth share a position, and a prompt with holes has gaps."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

Positions = int | mx.array
"""Where rows stand: so many positions behind where the cache says, or (1, n) int32 positions of their own."""


class TreeRope(nn.Module):
    """Stands in for one attention module's `rope`; plain calls pass straight through.

    An integer offset means consecutive positions, as always.  A (B, L) array gives every row its
    own: the rows move to the batch axis, where mx.fast.rope takes one offset each, so the same
    kernel computes them, bit for bit.
    """

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope = rope

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """x: (B, heads, L, head_dim); offset: int, or (B, L) int32 positions."""
        if not isinstance(offset, mx.array) or offset.ndim != 2:
            return self.rope(x, offset=offset)
        if len(x) == 1:
            rows = x.transpose(2, 1, 0, 3)  # (L, heads, 1, head_dim)
            return self.rope(rows, offset=offset[0]).transpose(2, 1, 0, 3)
        batch, heads, length, width = x.shape
        rows = x.transpose(0, 2, 1, 3).reshape(-1, heads, 1, width)
        turned = self.rope(rows, offset=offset.reshape(-1))
        return turned.reshape(batch, length, heads, width).transpose(0, 2, 1, 3)
