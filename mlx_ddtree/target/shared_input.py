"""Quantised layers that multiply the same rows: one product gives the results of all, the others take theirs.

mlx-lm calls such layers one by one, `self.q_proj(x), self.k_proj(x), self.v_proj(x)`.  The first call computes all; a
matrix of few columns, which fills no GPU by itself, comes with the large ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.kernels.quantized import MAX_ROWS, SharedInput

TOGETHER = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"),
    ("in_proj_qkvz", "in_proj_ba"),
)
"""Names of layers within one module that multiply the same rows in mlx-lm's models."""
PATIENCE = 2
"""How often in a row a group may be left with results that nobody has taken before it is given up: a call that was
interrupted leaves some, and so does a model that does not use a layer."""


class Together:
    """Layers of one input, each of which asks here for its product.

    layers: they know their own place among them.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = list(layers)
        self._weights: SharedInput | None = None
        self._rows: mx.array | None = None
        self._results: list[mx.array | None] = []
        self._untaken = 0
        self._left_over = 0
        for place, layer in enumerate(self.layers):
            layer.together = self
            layer.place = place

    def product(self, layer: Any, x: mx.array, multiply: Callable[..., list[mx.array]]) -> mx.array | None:
        """x (..., K) times the layer's transposed weight; None where that is left to the layer's own code.

        multiply: a form of kernels.quantized.shared_qmm.
        """
        place = layer.place
        weights = self._weights
        if weights is None or weights.parts[place][0] is not layer["weight"]:
            weights = self._read_weights()
        if x is not self._rows or self._results[place] is None:
            if self._untaken and self._is_given_up():
                together: Together = layer.together
                return together.product(layer, x, multiply)
            if x.dtype != weights.dtype or not 2 <= x.size // weights.depth <= MAX_ROWS:
                return None
            self._results = list(multiply(x, weights))
            self._rows = x
            self._untaken = len(self.layers)
        result = self._results[place]
        self._results[place] = None
        self._untaken -= 1
        if not self._untaken:
            self._rows = None
            self._left_over = 0
        return result

    def _read_weights(self) -> SharedInput:
        """The layers' arrays as they are now; nothing that was computed from others is taken any more."""
        first = self.layers[0]
        parts = [[each[name] for name in ("weight", "scales", "biases")] for each in self.layers]
        self._weights = SharedInput(parts, first.group_size, first.bits)
        self._rows = None
        self._untaken = 0
        return self._weights

    def _is_given_up(self) -> bool:
        """Whether results were left too often; each layer is then on its own."""
        self._untaken = 0
        self._rows = None
        self._left_over += 1
        if len(self.layers) == 1 or self._left_over <= PATIENCE:
            return False
        for layer in self.layers:
            Together([layer])
        return True


def group_layers(model: nn.Module, kind: type[Any]) -> None:
    """Put layers of one input together where their form is the same, and every other layer of `kind` on its own."""
    for module in model.modules():
        if isinstance(module, kind):
            Together([module])
    for module in model.modules():
        for names in TOGETHER:
            by_form = defaultdict(list)
            for name in names:
                layer = module.get(name)
                if isinstance(layer, kind):
                    scales = layer["scales"]
                    by_form[scales.shape[1], scales.dtype, layer.group_size, layer.bits].append(layer)
            for layers in by_form.values():
                if len(layers) > 1:
                    Together(layers)
