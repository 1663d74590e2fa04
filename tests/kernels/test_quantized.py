"""verify_qmm equals x times the dequantised weights in float64, reads each weight once, and gives a row the same bits
whatever other rows are computed with it."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.quantized import Tile, quantized_matmul, supports, tile_for, tile_rows, verify_qmm

from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")

EPS = {mx.float32: 2.0**-22, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}


def problem(rows, columns, depth, bits, group, dtype, seed=0):
    keys = mx.random.split(mx.random.key(seed))
    x = mx.random.normal((rows, depth), key=keys[0]).astype(dtype)
    return x, mx.quantize(mx.random.normal((columns, depth), key=keys[1]).astype(dtype), group_size=group, bits=bits)


def exact(x, packed, bits, group):
    """The product, and the sum of its terms' sizes, in float64."""
    words, *affine = packed
    weights = mx.dequantize(words, *(a.astype(mx.float32) for a in affine), group_size=group, bits=bits)
    weights, x = np.array(weights, np.float64), np.array(x.astype(mx.float32), np.float64)
    return x @ weights.T, np.abs(x) @ np.abs(weights).T


def check(rows, columns, depth, bits, group, dtype, *, fragments=mx.float32, tile=None, launch=None):
    x, packed = problem(rows, columns, depth, bits, group, dtype)
    y = verify_qmm(
        x,
        *packed,
        group_size=group,
        bits=bits,
        fragments=fragments,
        tile=tile,
        launch=launch or HostLaunch(mode="check"),
    )
    assert (y.shape, y.dtype) == ((rows, columns), dtype)
    want, size = exact(x, packed, bits, group)
    # the result's rounding, fp32 sums, and the weights' rounding to the fragments' type
    bound = EPS[dtype] * np.abs(want) + depth * 2.0**-23 * size + EPS[fragments] * size
    assert (np.abs(np.array(y.astype(mx.float32)) - want) <= bound).all()
    return x, packed, y


@pytest.mark.parametrize(
    ("rows", "columns", "depth", "bits", "group", "dtype", "fragments"),
    [
        (2, 40, 64, 4, 32, mx.float32, mx.float32),
        (8, 33, 160, 4, 32, mx.float32, mx.float32),  # the last block of 128 is not full, nor the last columns
        (3, 50, 640, 4, 64, mx.float16, mx.float32),  # more blocks than chains
        (9, 64, 128, 4, 64, mx.float16, mx.float32),
        (16, 7, 384, 4, 64, mx.float16, mx.float32),  # fewer columns than a strip
        (17, 35, 192, 4, 64, mx.float16, mx.float32),
        (31, 33, 64, 4, 64, mx.float16, mx.float32),
        (32, 70, 320, 4, 64, mx.float16, mx.float16),
        (11, 40, 256, 8, 128, mx.bfloat16, mx.float32),
    ],
)
def test_equals_the_dequantised_product(rows, columns, depth, bits, group, dtype, fragments):
    check(rows, columns, depth, bits, group, dtype, fragments=fragments)


def test_a_row_is_the_same_whatever_is_computed_with_it():
    """Bit-equal for 1 to 32 rows, in every tile, and in every place of the tile."""
    x, packed = problem(32, 40, 640, 4, 64, mx.float16)

    def product(rows):
        y = verify_qmm(rows, *packed, group_size=64, bits=4, launch=HostLaunch(mode="check"))
        return np.array(y.view(mx.uint16))

    everything = product(x)
    for n in (1, 2, 8, 9, 16, 17):
        np.testing.assert_array_equal(product(x[:n]), everything[:n])
    np.testing.assert_array_equal(product(x[::-1])[::-1], everything)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weights_are_taken_out_exactly(bits):
    """Every value that the bits can hold, in every place of a word: rows of one 1 give the weights, rounded once."""
    depth, columns = 64, 2**bits
    steps = (np.arange(depth)[None] + np.arange(columns)[:, None]) % 2**bits
    scales, biases = np.random.default_rng(0).normal(size=(2, columns, 1)).astype(np.float32)
    stream = ((steps[:, :, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(columns, -1)
    words = np.packbits(stream, axis=1, bitorder="little").view(np.uint32)
    want = (scales.astype(np.float64) * steps + biases).astype(np.float32)
    packed = [mx.array(x) for x in (words, scales, biases)]
    for first in range(0, depth, 32):
        ones = mx.array(np.eye(depth, dtype=np.float32)[first : first + 32])
        got = verify_qmm(ones, *packed, group_size=64, bits=bits, launch=HostLaunch(mode="check"))
        np.testing.assert_array_equal(got, want.T[first : first + 32])


def test_the_order_of_threads_does_not_matter():
    x, packed = problem(3, 50, 640, 4, 64, mx.float16)
    forward, reverse, shuffled = (
        np.array(verify_qmm(x, *packed, group_size=64, bits=4, launch=HostLaunch(mode="check", order=order)))
        for order in ("forward", "reverse", "shuffled")
    )
    np.testing.assert_array_equal(forward, reverse)
    np.testing.assert_array_equal(forward, shuffled)


def test_every_weight_and_scale_counts_and_is_read_once():
    """A changed bit of a word, a scale or a bias changes its column and no other; each word is read by one lane."""
    launch = HostLaunch(mode="check")
    x, packed, y = check(3, 50, 640, 4, 64, mx.float16, launch=launch)
    read = launch.last.bytes_read
    assert read["weight_0"] == 50 * 640 // 2
    assert (
        read["scales_0"] == read["biases_0"] == 2 * (50 * 10 * 2)
    )  # the two lanes of a group of 64 read the same word
    clean = np.array(y)
    rng = np.random.default_rng(0)
    for part in range(3):
        words = [np.array(p) for p in packed]
        column, place = int(rng.integers(50)), int(rng.integers(words[part].shape[1]))
        words[part][column, place] = words[part][column, place] * 1.5 if part else words[part][column, place] ^ 0x800
        faulty = verify_qmm(x, *map(mx.array, words), group_size=64, bits=4, launch=HostLaunch(mode="check"))
        assert set(np.argwhere(np.array(faulty) != clean)[:, 1].tolist()) == {column}


def test_batch_dimension_and_reference():
    x, packed = problem(5, 50, 160, 4, 32, mx.float32)
    y = verify_qmm(x[None], *packed, group_size=32, bits=4, launch=HostLaunch(mode="check"))
    want = quantized_matmul(x[None], *packed, group_size=32, bits=4)
    assert y.shape == want.shape == (1, 5, 50)
    np.testing.assert_allclose(y, want, atol=1e-4)


def test_tiles():
    """A column's sum takes an order that the number of rows does not change; threadgroups fit Metal's limits."""
    assert [tile_rows(n) for n in (1, 8, 9, 16, 17, 32)] == [8, 8, 16, 16, 32, 32]
    for columns in (512, 1024, 4096, 9728, 17408, 151936):
        for dtype in (mx.float16, mx.bfloat16, mx.float32):
            tiles = [tile_for(n, columns, dtype) for n in (1, 9, 32)]
            assert len({(t.width, t.chains) for t in tiles}) == 1
            assert all(t.threads == 256 for t in tiles)
    assert supports(32, mx.float16, group_size=64, bits=4)
    assert not supports(33, mx.float16, group_size=64, bits=4)
    assert not supports(8, mx.float16, group_size=16, bits=4, mode="nvfp4")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_all_formats(bits, group, dtype):
    for rows in (2, 9, 32):
        check(rows, 37, 384, bits, group, dtype)
    check(9, 37, 384, bits, group, dtype, fragments=dtype)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 3, 8, 9, 16, 17, 31, 32])
@pytest.mark.parametrize(("width", "chains"), [(8, 1), (4, 2), (2, 4)])
def test_all_tiles(rows, width, chains):
    for columns in (1, 16, 129, 200):
        for depth in (64, 640, 1216):
            check(rows, columns, depth, 4, 64, mx.float16, tile=Tile(tile_rows(rows), width, chains))


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "bits"), [(9, 4), (32, 8), (5, 6)])
def test_no_undefined_behaviour(rows, bits):
    check(rows, 37, 160, bits, 32, mx.float16, launch=HostLaunch(mode="asan"))
