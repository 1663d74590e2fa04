"""Taps: the outputs of some decoder layers, collected while the model runs its own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.nn as nn

from mlx_ddtree.target.forward import Forward


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
