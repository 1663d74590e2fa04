"""RoPE with one position per row: tree nodes of equal depth share a position, and a prompt with holes has gaps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

Positions = int | mx.array
"""Where rows stand: so many places behind where the cache says, or (1, n) int32 positions of their own."""


@dataclass
class Places:
    """What the rotary embeddings of one model share while it runs.  at: of the rows that go through it now."""

    at: Positions = 0

    @contextmanager
    def set(self, at: Positions) -> Iterator[None]:
        """For the modules that are called within."""
        self.at = at
        try:
            yield
        finally:
            self.at = 0


class TreeRope(nn.Module):
    """Stands in for one attention module's `rope`; plain calls pass straight through.

    An integer offset means consecutive positions, as always.  A (1, L) array gives every row its
    own: the rows move to the batch axis, where mx.fast.rope takes one offset each, so the same
    kernel computes them, bit for bit.  `places` moves plain calls elsewhere.
    """

    def __init__(self, rope: nn.Module, places: Places | None = None) -> None:
        super().__init__()
        self.rope, self.places = rope, places or Places()

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """x: (1, heads, L, head_dim); offset: int, or (1, L) int32 positions."""
        at = self.places.at
        if isinstance(at, mx.array):
            offset = at
        elif at:
            offset = offset + at
        if not isinstance(offset, mx.array) or offset.ndim != 2:
            return self.rope(x, offset=offset)
        rows = x.transpose(2, 1, 0, 3)  # (L, heads, 1, head_dim)
        return self.rope(rows, offset=offset[0]).transpose(2, 1, 0, 3)


def take_positions(module: nn.Module, places: Places | None = None) -> None:
    """Let this attention module's rotary embedding take a position per row, and what `places` says."""
    if "rope" in module and not isinstance(module, TreeRope) and not isinstance(module.rope, TreeRope):
        module.rope = TreeRope(module.rope, places)
