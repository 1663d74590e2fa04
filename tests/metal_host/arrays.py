"""MLX arrays as bytes that a kernel sees, and back."""

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray


class Bytes(NamedTuple):
    """The memory a kernel gets for an array: from its first element to its last.  strides count elements."""

    data: NDArray[np.uint8]
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def numpy_view(x: mx.array) -> np.ndarray:
    """A view with the strides of `x`, bfloat16 as its bits (numpy has no such type)."""
    x = x.view(mx.uint16) if x.dtype == mx.bfloat16 else x
    mx.eval(x)
    return np.array(x, copy=False)


def to_bytes(x: mx.array, contiguous: bool) -> Bytes:
    """What Metal would get: a row-contiguous copy, or the array as it lies.

    Where elements of a larger array lie between those of `x`, 0xFF stands, so that a kernel that reads beside its
    slice computes NaN.
    """
    view = numpy_view(x)
    if contiguous:
        view = np.ascontiguousarray(view).reshape(view.shape)
    strides = tuple(s // view.itemsize for s in view.strides)
    if min(strides, default=0) < 0:
        raise NotImplementedError("inputs with negative strides")
    extent = 1 + sum((n - 1) * s for n, s in zip(view.shape, strides, strict=True)) if view.size else 0
    data = np.full(extent * view.itemsize, 0xFF, np.uint8)
    as_strided(data.view(view.dtype), view.shape, view.strides)[...] = view
    return Bytes(data, view.shape, strides)


def output_array(shape: tuple[int, ...], dtype: mx.Dtype, init_value: float | None) -> np.ndarray:
    """An output before the launch: init_value, or 0xFF (NaN, -1), which shows where a kernel does not write."""
    like = numpy_view(mx.zeros((1,), dtype))
    if init_value is not None:
        return np.full(shape, numpy_view(mx.full((1,), init_value, dtype))[0])
    return np.frombuffer(bytearray(b"\xff" * (int(np.prod(shape)) * like.itemsize)), like.dtype).reshape(shape)


def to_mlx(x: np.ndarray, dtype: mx.Dtype) -> mx.array:
    """The output as MLX's array, a copy."""
    return mx.array(x).view(dtype) if dtype == mx.bfloat16 else mx.array(x)
