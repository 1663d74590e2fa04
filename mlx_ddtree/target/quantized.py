"""A target's quantised products through `verify_qmm`, where a switch says so.

Only instances change, by a subclass: parameters, names and `isinstance` stay as they were, and with the switch off
they run their own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import QuantizedAllToShardedLinear, QuantizedShardedToAllLinear

from mlx_ddtree.kernels.head import HeadWeights
from mlx_ddtree.kernels.quantized import MAX_ROWS, supports


@dataclass
class Products:
    """What one model's quantised modules ask; all of them share it.

    product: `verify_qmm` (or a partial of it), for calls of 2 to 32 rows; None: MLX's own.
    """

    product: Callable[..., mx.array] | None = None

    @contextmanager
    def by(self, product: Callable[..., mx.array] | None) -> Iterator[None]:
        """For the modules that are called within; plain decoding and prompts keep MLX's own, which mlx-lm runs."""
        self.product = product
        try:
            yield
        finally:
            self.product = None

    def of(self, module: Any, x: mx.array) -> mx.array | None:
        """x times the module's transposed weight; None if that is left to the module."""
        if self.product is None or not 2 <= x.size // x.shape[-1] <= MAX_ROWS or x.dtype != module.scales.dtype:
            return None
        weights = module.weight, module.scales, module.biases
        return self.product(x, *weights, group_size=module.group_size, bits=module.bits)


class _Rows:
    """Mixed into one instance of a quantised linear layer: it asks its switch first."""

    products: Products

    def __call__(self: Any, x: mx.array) -> mx.array:
        y = self.products.of(self, x)
        if y is None:
            return super().__call__(x)  # type: ignore[misc]
        y = self._whole(y)
        return y + self.bias if "bias" in self else y

    def _whole(self, y: mx.array) -> mx.array:
        """The product, from this module's part of it."""
        return y


class RowsLinear(_Rows, nn.QuantizedLinear):
    """A whole layer."""


class RowsAllToSharded(_Rows, QuantizedAllToShardedLinear):
    """Of which this rank has some of the outputs, and wants no others."""


class RowsShardedToAll(_Rows, QuantizedShardedToAllLinear):
    """Of which this rank has some of the inputs: ranks add up what each has."""

    def _whole(self, y: mx.array) -> mx.array:
        return mx.distributed.all_sum(y, group=self.group)


class RowsEmbedding(nn.QuantizedEmbedding):
    """A quantised embedding whose use as LM head asks its switch first."""

    products: Products

    def as_linear(self, x: mx.array) -> mx.array:
        y = self.products.of(self, x)
        return super().as_linear(x) if y is None else y


_WITH_ROWS: dict[type[Any], type[Any]] = {
    nn.QuantizedLinear: RowsLinear,
    nn.QuantizedEmbedding: RowsEmbedding,
    QuantizedAllToShardedLinear: RowsAllToSharded,
    QuantizedShardedToAllLinear: RowsShardedToAll,
}


def take_rows(model: nn.Module, products: Products) -> None:
    """Let the quantised layers of `model` that `verify_qmm` supports ask `products`; others are left alone."""
    for module in model.modules():
        asking = _WITH_ROWS.get(type(module))
        if asking and supports(
            1, module.scales.dtype, group_size=module.group_size, bits=module.bits, mode=module.mode
        ):
            module.__class__ = asking
            module.products = products


def head_weights(head: Any) -> HeadWeights | None:
    """The weights of a model's LM head, a linear layer or the embedding that is used as one, as `head_top_k` takes
    them; None for a head with a bias or of another kind."""
    if "bias" in head:
        return None
    if isinstance(head, nn.QuantizedLinear | nn.QuantizedEmbedding):
        how = {"group_size": head.group_size, "bits": head.bits}
        fits = supports(1, head.scales.dtype, mode=head.mode, **how)
        return HeadWeights(head.weight, head.scales, head.biases, **how) if fits else None
    plain = isinstance(head, nn.Linear | nn.Embedding) and head.weight.shape[1] % 32 == 0
    return HeadWeights(head.weight) if plain else None
