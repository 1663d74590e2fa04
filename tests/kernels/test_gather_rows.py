"""Rows gathered from many arrays at once are those of every array by itself."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.gather_rows import gather_rows, launch_gather_rows

from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


def array(seed, shape, dtype):
    return mx.random.randint(0, 1000, shape, key=mx.random.key(seed)).astype(dtype)


def assert_gathers(arrays, path, start, launches):
    launch = HostLaunch()
    path = mx.array(path, mx.int32)
    got, want = launch_gather_rows(arrays, path, start, launch=launch), gather_rows(arrays, path, start)
    for x, y in zip(got, want, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(np.array(x.astype(mx.float32)), np.array(y.astype(mx.float32)))
    assert len(launch.launches) == launches
    assert sum(sum(x.bytes_written.values()) for x in launch.launches) == sum(x.nbytes for x in want)


@pytest.mark.parametrize("path", [[0], [1, 4, 9], list(range(3, 20)), [0, 0, 5]])
def test_rows_of_all_layers_come_with_one_launch(path):
    assert_gathers([array(i, (1, 2, 64, 16), mx.float32) for i in range(4)], path, 40, 1)


def test_a_large_cache_takes_a_launch_for_28_arrays():
    """The number of buffers that Metal allows."""
    assert_gathers([array(i, (1, 2, 20, 16), mx.float32) for i in range(32)], [1, 3], 7, 2)


@pytest.mark.slow
def test_arrays_of_several_shapes_and_types_keep_their_places():
    """As a cache of quantised keys and values has them, and one of layers with different heads."""
    kinds = [
        ((1, 2, 50, 4), mx.uint32),
        ((1, 2, 50, 1), mx.bfloat16),
        ((1, 2, 50, 1), mx.bfloat16),
        ((1, 3, 50, 24), mx.float16),
    ]
    assert_gathers([array(i, *kinds[i % 4]) for i in range(12)], [0, 2, 11, 12], 30, 3)
