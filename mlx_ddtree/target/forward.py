"""What the modules of a model know of the forward that runs through them, beside their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.rope import Positions


@dataclass
class Forward:
    """The forward that runs through one model now.  All modules of the model hold this object; between forwards it says
    what mlx-lm does by itself.

    positions: where the rows stand, beside what their caches say; rotary embeddings ask (target/rope.py).
    product: x (..., K) times a quantised weight's transpose, a form of kernels.quantized.verify_qmm; quantised layers
        ask (target/quantized.py).  None: MLX's own operation.
    outputs: what tapped layers have given, (1, n, D) each, by the layer's number; they leave it here (target/taps.py).
    """

    positions: Positions = 0
    product: Callable[..., mx.array] | None = None
    outputs: dict[int, mx.array] = field(default_factory=dict)

    @contextmanager
    def running(self, positions: Positions = 0, kernels: KernelSet = MLX) -> Iterator[None]:
        """For the modules that are called within.  Plain decoding and prompts keep MLX's operations, as mlx-lm does."""
        self.positions = positions
        self.product = kernels.product
        try:
            yield
        finally:
            self.positions = 0
            self.product = None
            self.outputs.clear()
