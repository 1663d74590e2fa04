"""Rows gathered from many arrays at once are those of every array by itself."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.gather_rows import gather_rows, launch_gather_rows

from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


def array(seed, shape, dtype):
    return mx.random.randint(0, 1000, shape, key=mx.random.key(seed)).astype(dtype)


def assert_gathers(arrays, path, launches):
    launch = HostLaunch()
    got, rows = launch_gather_rows(arrays, path, launch=launch), mx.array(path)
    for x, y, z in zip(got, gather_rows(arrays, path), arrays, strict=True):
        want = mx.take(z, rows, axis=2)
        for ours in (x, y):
            assert ours.dtype == want.dtype and ours.shape == want.shape
            np.testing.assert_array_equal(np.array(ours.astype(mx.float32)), np.array(want.astype(mx.float32)))
    assert len(launch.launches) == launches
    if launches:
        assert sum(sum(x.bytes_written.values()) for x in launch.launches) == sum(x.nbytes for x in got)


@pytest.mark.parametrize("path", [[1, 4, 9], [0, 0, 5], [*range(3, 20), 30], list(range(1, 31, 2))])
def test_rows_of_all_layers_come_with_one_launch(path):
    assert_gathers([array(i, (1, 2, 31, 16), mx.float32) for i in range(4)], path, 1)


@pytest.mark.parametrize("path", [[0], [7], [3, 4, 5]])
def test_neighbouring_rows_need_none(path):
    assert_gathers([array(i, (1, 2, 31, 16), mx.float32) for i in range(4)], path, 0)


def test_arrays_may_be_transposed():
    """As attention's values are: (1, N, H, D) with two axes exchanged.  Nothing is copied for the kernel."""
    arrays = [array(i, (1, 31, 2, 16), mx.float32).transpose(0, 2, 1, 3) for i in range(2)]
    assert_gathers([*arrays, *(array(i, (1, 2, 31, 16), mx.float32) for i in range(2))], [2, 5], 1)


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (0, 3, 1, 2), (0, 2, 3, 1)])
def test_a_rows_numbers_need_not_lie_side_by_side(order):
    """Keys that are kept transposed: the last axis has a stride of its own."""
    back = np.argsort(order).tolist()
    shape = (1, 2, 31, 16)
    arrays = [array(i, [shape[axis] for axis in order], mx.float32).transpose(back) for i in range(2)]
    assert arrays[0].shape == shape
    assert_gathers(arrays, [2, 5, 9], 1)


@pytest.mark.slow
def test_a_large_cache_takes_a_launch_for_14_arrays():
    """The number of buffers that Metal allows."""
    assert_gathers([array(i, (1, 2, 20, 16), mx.float32) for i in range(32)], [1, 3], 3)


@pytest.mark.slow
def test_arrays_of_several_shapes_and_types_keep_their_places():
    kinds = [
        ((1, 2, 50, 4), mx.uint32),
        ((1, 2, 50, 8), mx.bfloat16),
        ((1, 2, 50, 8), mx.bfloat16),
        ((1, 3, 50, 24), mx.float16),
    ]
    assert_gathers([array(i, *kinds[i % 4]) for i in range(12)], [0, 2, 11, 12], 3)
