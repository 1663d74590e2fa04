"""Rows that are told how noisy they are (PrismML's Bonsai drafters): the root not at all, a mask entirely.

level t = 1000 at the root, 0 at a mask; addend = fc2 SiLU(fc1 [sin(t f); cos(t f)]), f_i = 10000^(-i / 64).
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

FREQUENCIES = 64
HIGHEST = 1000.0
"""The level of a row without noise; the file's bounds are mapped to 0..HIGHEST, so no level depends on them."""


class LogSnrEmbedding(nn.Module):
    """What is added to a block's embeddings."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * FREQUENCIES, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def __call__(self, rows: int) -> mx.array:
        """(rows, D), the root's row first."""
        level = mx.where(mx.arange(rows) == 0, HIGHEST, 0.0)
        frequency = mx.exp(mx.arange(FREQUENCIES) * (-math.log(10000.0) / FREQUENCIES))
        angle = level[:, None] * frequency
        waves = mx.concatenate([mx.sin(angle), mx.cos(angle)], axis=-1)
        return self.fc2(nn.silu(self.fc1(waves.astype(self.fc1.bias.dtype))))
