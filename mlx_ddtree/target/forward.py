"""What the modules of a model know of the forward that runs through them, beside their inputs.

What turns or embeds positions asks it where rows stand (target/positions.py), tapped layers leave their outputs with
it, and quantised layers ask it for a kernel (target/quantized.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.rope import Positions


@dataclass
class Forward:
    """The forward that runs through one model now.  All modules of the model hold this object; between forwards it says
    what mlx-lm does by itself.

    positions: where the rows stand, beside what their caches say; rotary and learned embeddings ask.
    product: x (..., K) times quantised weights that share it, a form of kernels.quantized.shared_qmm; quantised layers
        ask (target/quantized.py).  None: MLX's own operation.
    outputs: what tapped layers have given, (1, n, D) each, by the layer's number; they leave it here.
    """

    positions: Positions = 0
    product: Callable[..., list[mx.array]] | None = None
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

    @contextmanager
    def standing(self, positions: Positions) -> Iterator[None]:
        """For modules that are called within with other rows than the forward's, or after it."""
        before = self.positions
        self.positions = positions
        try:
            yield
        finally:
            self.positions = before


def tap(layers: Sequence[nn.Module | None], taps: Sequence[int], forward: Forward) -> None:
    """From now on each call of layers[i], for i in `taps`, leaves its output (1, n, D) in forward.outputs[i].

    Only these instances change, by a subclass of their own class each, which `tap` with other taps
    takes away again; the model's parameters keep their names.
    """
    for i, layer in enumerate(layers):
        if layer is None:  # another stage of a pipeline has it
            continue
        own = getattr(type(layer), "untapped", type(layer))
        layer.__class__ = _tapped(own, i, forward) if i in taps else own


def _tapped(own: type[Any], index: int, forward: Forward) -> type[Any]:
    class Tapped(own):
        untapped = own

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            result = super().__call__(*args, **kwargs)
            forward.outputs[index] = result[0] if isinstance(result, tuple) else result
            return result

    Tapped.__name__ = own.__name__
    return Tapped
