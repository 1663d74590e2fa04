"""A path's rows of many arrays: what a commit puts into the caches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache

import mlx.core as mx

from mlx_ddtree.kernels.metal import Launch, MetalKernel, at_least_8, launch_on_metal

GatherRows = Callable[[Sequence[mx.array], Sequence[int]], list[mx.array]]
_MOST_ARRAYS = 14
"""Of the 31 buffers that Metal gives a kernel, three are the path, the sizes and the output; an array is two with
its strides."""


def gather_rows(arrays: Sequence[mx.array], path: Sequence[int]) -> list[mx.array]:
    """For each of the arrays (1, H, N, D) its rows `path`, (1, H, m, D)."""
    if _is_run(path):
        return [x[:, :, path[0] : path[-1] + 1] for x in arrays]  # views, whereas mx.take copies
    rows = mx.array(list(path), mx.int32)
    return [mx.take(x, rows, axis=2) for x in arrays]


def launch_gather_rows(
    arrays: Sequence[mx.array], path: Sequence[int], *, launch: Launch = launch_on_metal
) -> list[mx.array]:
    """Gather rows by the kernel, 14 arrays of one shape and type to a launch, whatever their strides.

    MLX knows what a kernel writes by its outputs only, so a kernel cannot put rows into the caches: they come packed,
    and slice assignments put them in place.
    """
    if _is_run(path):
        return gather_rows(arrays, path)
    groups: dict[tuple[tuple[int, ...], mx.Dtype], list[int]] = defaultdict(list)
    for i, x in enumerate(arrays):
        groups[x.shape, x.dtype].append(i)
    taken: dict[int, mx.array] = {}
    rows, count = at_least_8(mx.array(list(path), mx.int32)), len(path)
    for members in groups.values():
        for first in range(0, len(members), _MOST_ARRAYS):
            part = members[first : first + _MOST_ARRAYS]
            packed = _gather([arrays[i] for i in part], rows, count, launch)
            taken |= {i: packed[place : place + 1] for place, i in enumerate(part)}
    return [taken[i] for i in range(len(arrays))]


def _gather(arrays: Sequence[mx.array], rows: mx.array, count: int, launch: Launch) -> mx.array:
    _, heads, _, width = arrays[0].shape
    elements = count * width
    group = min(256, -(-elements // 32) * 32)
    (packed,) = launch(
        _kernel(len(arrays)),
        [*arrays, rows, mx.array([heads, width, count], mx.int32)],
        template=[("T", arrays[0].dtype)],
        grid=(-(-elements // group) * group, heads * len(arrays), 1),
        threadgroup=(group, 1, 1),
        output_shapes=[(len(arrays), heads, count, width)],
        output_dtypes=[arrays[0].dtype],
    )
    return packed


def _is_run(path: Sequence[int]) -> bool:
    return list(path) == list(range(path[0], path[0] + len(path)))


@cache
def _kernel(arrays: int) -> MetalKernel:
    sources = tuple(f"source_{i}" for i in range(arrays))
    return MetalKernel("gather_rows", (*sources, "path", "sizes"), ("packed",), contiguous=False, repeat=arrays)
