"""What the modules of a model know of the forward that runs through them, beside their inputs.

Rotary embeddings ask it where rows stand, and tapped layers leave their outputs with it; both are changed here, on the
loaded instance.  Quantised layers ask it for a kernel (target/quantized.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import ministral3, rope_utils

from mlx_ddtree.kernels.choice import MLX, KernelSet
from mlx_ddtree.kernels.rope import Positions, TreeRope
from mlx_ddtree.target.attention import calling


@dataclass
class Forward:
    """The forward that runs through one model now.  All modules of the model hold this object; between forwards it says
    what mlx-lm does by itself.

    positions: where the rows stand, beside what their caches say; rotary embeddings ask.
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


class ForwardRope(TreeRope):
    """A TreeRope that moves its rows to the positions of the running forward."""

    def __init__(self, rope: nn.Module, forward: Forward) -> None:
        super().__init__(rope)
        self.forward = forward

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """x: (B, heads, L, head_dim); offset: what the cache says, an int or (B, L) int32 positions."""
        positions = self.forward.positions
        if isinstance(positions, mx.array):
            return super().__call__(x, positions)
        if positions:
            offset = offset + positions
        return super().__call__(x, offset)


def adapt_rope(module: nn.Module, forward: Forward) -> None:
    """Let an attention module's rotary embeddings take a position per row; modules without one stay as they are."""
    for name, child in list(module.items()):
        if isinstance(child, TreeRope):  # of another target over the same model
            module[name] = ForwardRope(child.rope, forward)
        elif isinstance(child, nn.Module) and (name == "rope" or _rotates(child)):
            module[name] = ForwardRope(child, forward)


def _rotates(module: nn.Module) -> bool:
    """Whether this is one of the rotary embeddings that mlx-lm's models share, whatever a model calls it."""
    return isinstance(module, nn.RoPE) or type(module).__module__ == rope_utils.__name__


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


def adapt_query_scale(stack: nn.Module) -> None:
    """Let a stack that scales queries by their positions (Ministral 3, Mistral 4) take a position per row."""
    name = "_get_llama_4_attn_scale"
    call: Any = type(stack).__call__
    theirs = call.__globals__.get(name)
    if name not in call.__code__.co_names or theirs is not ministral3._get_llama_4_attn_scale:
        return

    def of_rows(size: int, offset: int | mx.array, beta: float, positions: int) -> mx.array:
        """(size, 1) scales; offset: consecutive positions from there on, or (1, size) int32 positions."""
        if isinstance(offset, mx.array) and offset.ndim == 2:
            return theirs(1, offset[0], beta, positions).reshape(size, 1)
        return theirs(size, offset, beta, positions)

    stack.__class__ = calling(type(stack), name, of_rows)
