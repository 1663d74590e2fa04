"""Taps: the outputs of some decoder layers, collected while the model runs its own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn


def tap(layers: Sequence[nn.Module | None], taps: Sequence[int], seen: dict[int, mx.array]) -> None:
    """From now on each call of layers[i], for i in `taps`, leaves its output (1, n, D) in seen[i].

    Only these instances change, by a subclass of their own class each, which `tap` with other taps
    takes away again; the model's parameters keep their names.
    """
    for i, layer in enumerate(layers):
        if layer is None:
            continue
        own = getattr(type(layer), "untapped", type(layer))
        layer.__class__ = _tapped(own, i, seen) if i in taps else own


def _tapped(own: type[Any], index: int, seen: dict[int, mx.array]) -> type[Any]:
    class Tapped(own):
        untapped = own

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            result = super().__call__(*args, **kwargs)
            seen[index] = result[0] if isinstance(result, tuple) else result
            return result

    Tapped.__name__ = own.__name__
    return Tapped
