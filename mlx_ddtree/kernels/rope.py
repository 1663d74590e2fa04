"""RoPE with one position per row: tree nodes of equal depth share a position, and a prompt with holes has gaps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.rope_utils import DynamicNTKScalingRoPE

Positions = int | mx.array
"""Where rows stand: so many positions behind where the cache says, or (1, n) int32 positions of their own."""


class TreeRope(nn.Module):
    """Stands in for one attention module's `rope`; plain calls pass straight through.

    An integer offset means consecutive positions, as always.  A (B, L) array gives every row its own.
    """

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope = rope

    def __call__(self, x: mx.array, offset: int | mx.array = 0, **options: Any) -> mx.array:
        """x: (B, heads, L, head_dim); offset: int, or (B, L) int32 positions; options: whatever `rope` takes beside."""
        if not isinstance(offset, mx.array) or offset.ndim != 2:
            return self.rope(x, offset=offset, **options)
        if isinstance(self.rope, DynamicNTKScalingRoPE):
            return rotate_by_length(self.rope, x, offset)
        return rotate_rows(partial(self.rope, **options), x, offset)


def rotate_rows(rotate: Callable[..., mx.array], x: mx.array, positions: mx.array) -> mx.array:
    """x (B, heads, L, head_dim) with positions (B, L) int32 of its rows.

    rotate: what a model turns x with, given one offset or one for each of the batch.

    The rows move to the batch axis, where mx.fast.rope takes one offset each, so that the same kernel computes them,
    bit for bit.
    """
    if len(x) == 1:
        rows = x.transpose(2, 1, 0, 3)  # (L, heads, 1, head_dim)
        return rotate(rows, offset=positions[0]).transpose(2, 1, 0, 3)
    turned = rotate(_in_the_batch(x), offset=positions.reshape(-1))
    return _in_their_places(turned, x)


def rotate_by_length(rope: DynamicNTKScalingRoPE, x: mx.array, positions: mx.array) -> mx.array:
    """x (B, heads, L, head_dim) with positions (B, L) int32 that the host knows, as steps of one row turn each.

    Dynamic NTK scaling takes its base from the length of the text up to the row, so behind the positions that the model
    was trained for, rows at different positions have different bases: each position is a call of its own.
    """
    places = np.array(positions).reshape(-1)
    if places.max() < rope.max_position_embeddings:
        return rotate_rows(nn.RoPE(rope.dims, rope.traditional, rope.base), x, positions)
    rows = _in_the_batch(x)
    known, which = np.unique(places, return_inverse=True)
    order = np.argsort(which, kind="stable")
    parts = [rope(rows[mx.array(np.flatnonzero(which == i))], offset=int(place)) for i, place in enumerate(known)]
    return _in_their_places(mx.concatenate(parts)[mx.array(np.argsort(order))], x)


def _in_the_batch(x: mx.array) -> mx.array:
    """(B, heads, L, D) -> (B * L, heads, 1, D)."""
    _, heads, _, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(-1, heads, 1, width)


def _in_their_places(rows: mx.array, x: mx.array) -> mx.array:
    """(B * L, heads, 1, D) -> the shape of x, (B, heads, L, D)."""
    batch, heads, length, width = x.shape
    return rows.reshape(batch, length, heads, width).transpose(0, 2, 1, 3)
