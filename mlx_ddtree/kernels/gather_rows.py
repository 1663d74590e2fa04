"""Rows of many arrays of a cache by one list of indices: what a commit moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import mlx.core as mx

from mlx_ddtree.kernels.metal import Launch, MetalKernel, at_least_8, launch_on_metal

GatherRows = Callable[[Sequence[mx.array], mx.array, int], list[mx.array]]
_MOST_ARRAYS = 28
"""Of the 31 buffers that Metal gives a kernel, three are the path, the sizes and the output."""


def gather_rows(arrays: Sequence[mx.array], path: mx.array, start: int = 0) -> list[mx.array]:
    """For each of the arrays (1, H, L, D) its rows start + path, (1, H, m, D).  path: (m,) int32."""
    rows = path + start if start else path
    return [mx.take(x, rows, axis=2) for x in arrays]


def launch_gather_rows(
    arrays: Sequence[mx.array], path: mx.array, start: int = 0, *, launch: Launch = launch_on_metal
) -> list[mx.array]:
    """The same, up to 28 arrays of one shape and type to a launch.

    MLX knows what a kernel writes by its outputs only, so rows cannot be moved inside the arrays: they come
    packed, and the caller's slice assignments put them in place, which MLX does without copying an array that nobody
    else holds.
    """
    groups: dict[tuple[tuple[int, ...], mx.Dtype], list[int]] = defaultdict(list)
    for i, x in enumerate(arrays):
        groups[x.shape, x.dtype].append(i)
    taken: dict[int, mx.array] = {}
    padded_path, count = at_least_8(path), path.size
    for members in groups.values():
        for first in range(0, len(members), _MOST_ARRAYS):
            part = members[first : first + _MOST_ARRAYS]
            packed = _gather([arrays[i] for i in part], padded_path, count, start, launch)
            taken |= {i: packed[place : place + 1] for place, i in enumerate(part)}
    return [taken[i] for i in range(len(arrays))]


def _gather(arrays: Sequence[mx.array], path: mx.array, count: int, start: int, launch: Launch) -> mx.array:
    _, heads, length, width = arrays[0].shape
    elements = count * width
    group = min(256, -(-elements // 32) * 32)
    (packed,) = launch(
        _kernel(len(arrays)),
        [*arrays, path, mx.array([heads, length, width, count, start], mx.int32)],
        template=[("T", arrays[0].dtype)],
        grid=(-(-elements // group) * group, heads * len(arrays), 1),
        threadgroup=(group, 1, 1),
        output_shapes=[(len(arrays), heads, count, width)],
        output_dtypes=[arrays[0].dtype],
    )
    return packed


@cache
def _kernel(arrays: int) -> MetalKernel:
    sources = tuple(f"source_{i}" for i in range(arrays))
    return MetalKernel("gather_rows", (*sources, "path", "sizes"), ("packed",), repeat=arrays)
