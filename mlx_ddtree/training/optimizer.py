"""The optimizers of a training run: AdamW as published, or Muon for the matrices."""

from __future__ import annotations

import mlx.core as mx
import mlx.optimizers as optim

MUON_RATE = 10.0
"""Muon's rate for each of AdamW's: its updates are orthogonal, so they take larger steps."""


def is_table(path: str) -> bool:
    """Whether a parameter is a table of tokens, or one row, and no map from channels to channels."""
    return any(part in path for part in ("codebook", "markov_w", "confidence_head"))


def make_optimizer(name: str, lr: float, weight_decay: float) -> optim.Optimizer:
    """'adamw' for every parameter, or 'muon' for matrices with AdamW for norms and embeddings."""
    adamw = optim.AdamW(lr, weight_decay=weight_decay, bias_correction=True)
    return adamw if name == "adamw" else MuonAndAdamW(adamw, weight_decay)


class MuonAndAdamW(optim.MultiOptimizer):
    """One learning rate for both: AdamW's; Muon's is MUON_RATE times as large."""

    def __init__(self, adamw: optim.AdamW, weight_decay: float) -> None:
        muon = optim.Muon(MUON_RATE * float(adamw.learning_rate.item()), weight_decay=weight_decay)
        super().__init__([muon, adamw], [lambda path, weight: weight.ndim == 2 and not is_table(path)])

    @property
    def learning_rate(self) -> mx.array:
        return self.optimizers[1].learning_rate

    @learning_rate.setter  # type: ignore[override]
    def learning_rate(self, learning_rate: float) -> None:
        self.optimizers[0].learning_rate = MUON_RATE * learning_rate
        self.optimizers[1].learning_rate = learning_rate
