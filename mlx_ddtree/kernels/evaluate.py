"""Evaluate all arrays of a module, those that are no parameters (tables of rotary embeddings, masks) among them.

MLX computes an array on the streams of the thread that asked for it first, and another thread has no such streams.
Parameters are evaluated when weights are loaded; what a module made for itself would stay lazy until its first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn


def evaluate(module: nn.Module) -> None:
    """After this any thread can use the module, whichever thread has made it."""
    mx.eval(list(arrays_of(module)))


def arrays_of(value: Any) -> Iterator[mx.array]:
    """Every array in a module (which is a dictionary, as mlx.nn has it), dictionary, list or tuple, at any depth."""
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from arrays_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from arrays_of(part)
