"""A target's quantised products, by a kernel while the running forward names one.

Only instances change, by a subclass: parameters, names and `isinstance` stay as they were, and without a kernel they
run their own code.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import QuantizedAllToShardedLinear, QuantizedShardedToAllLinear

from mlx_ddtree.kernels.head import HeadWeights
from mlx_ddtree.kernels.quantized import supports
from mlx_ddtree.target.forward import Forward
from mlx_ddtree.target.shared_input import Together, group_layers


class _KernelProduct:
    """Mixed into one instance of a quantised layer: the running forward's kernel multiplies, where it has one.

    together, place: the layers that have the same input, and which of them this is.
    """

    forward: Forward
    together: Together
    place: int

    def kernel_product(self, x: mx.array) -> mx.array | None:
        """x (..., K) times the layer's transposed weight; None where that is left to the layer's own code."""
        product = self.forward.product
        return None if product is None else self.together.product(self, x, product)


class _KernelLinear(_KernelProduct):
    """Mixed into quantised linear layers."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        product = self.forward.product
        y = None if product is None else self.together.product(self, x, product)
        if y is None:
            return super().__call__(x)  # type: ignore[misc]
        return y + self["bias"] if "bias" in self else y


class KernelLinear(_KernelLinear, nn.QuantizedLinear):
    """A whole layer."""


class KernelAllToSharded(_KernelLinear, QuantizedAllToShardedLinear):
    """A layer of which this rank has some of the outputs, and wants no others."""


class KernelShardedToAll(_KernelProduct, QuantizedShardedToAllLinear):
    """A layer of which this rank has some of the inputs: ranks add up what each has."""

    def __call__(self: Any, x: mx.array) -> mx.array:
        y = self.kernel_product(x)
        if y is None:
            return super().__call__(x)
        y = mx.distributed.all_sum(y, group=self.group)
        return y + self["bias"] if "bias" in self else y


class KernelEmbedding(_KernelProduct, nn.QuantizedEmbedding):
    """A quantised embedding, in its use as LM head."""

    def as_linear(self, x: mx.array) -> mx.array:
        y = self.kernel_product(x)
        return super().as_linear(x) if y is None else y


_KERNEL_CLASSES: dict[type[Any], type[Any]] = {
    nn.QuantizedLinear: KernelLinear,
    nn.QuantizedEmbedding: KernelEmbedding,
    QuantizedAllToShardedLinear: KernelAllToSharded,
    QuantizedShardedToAllLinear: KernelShardedToAll,
}


def adapt_quantized(model: nn.Module, forward: Forward) -> None:
    """Let the quantised layers of `model` that `verify_qmm` supports ask `forward`; others are left alone."""
    for module in model.modules():
        adapted = _KERNEL_CLASSES.get(type(module))
        if adapted is not None and supports(
            1, module.scales.dtype, group_size=module.group_size, bits=module.bits, mode=module.mode
        ):
            module.__class__ = adapted
        if isinstance(module, _KernelProduct):
            module.forward = forward
    group_layers(model, _KernelProduct)


def head_weights(head: Any) -> HeadWeights | None:
    """The weights of a model's LM head as `head_top_k` takes them; None for a head with a bias or of another kind.

    head: a linear layer, or the embedding that is used as one.
    """
    if "bias" in head:
        return None
    if isinstance(head, nn.QuantizedLinear | nn.QuantizedEmbedding):
        if not supports(1, head.scales.dtype, group_size=head.group_size, bits=head.bits, mode=head.mode):
            return None
        return HeadWeights(head.weight, head.scales, head.biases, group_size=head.group_size, bits=head.bits)
    plain = isinstance(head, nn.Linear | nn.Embedding) and head.weight.shape[1] % 32 == 0
    return HeadWeights(head.weight) if plain else None


def rows_of_head(head: Any, token_ids: mx.array) -> mx.array | None:
    """The rows (n, D) of a model's LM head for tokens (n,), dequantised; None for a head with a bias or of another
    kind."""
    if "bias" in head:
        return None
    if isinstance(head, nn.Embedding | nn.QuantizedEmbedding):
        return head(token_ids)
    if isinstance(head, nn.QuantizedLinear):
        biases = None if head.biases is None else head.biases[token_ids]
        return mx.dequantize(
            head.weight[token_ids],
            head.scales[token_ids],
            biases,
            group_size=head.group_size,
            bits=head.bits,
            mode=head.mode,
        )
    return head.weight[token_ids] if isinstance(head, nn.Linear) else None
