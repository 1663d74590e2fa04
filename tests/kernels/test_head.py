"""head_top_k gives the same tokens, ties included, as sorting all logits, and their log-sum-exp.

Hidden states and weights are small multiples of powers of two, so that sums are exact in any order and logits tie often.
"""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.head import HeadWeights, head_top_k, head_top_k_reference

from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


def dense(vocab, depth, dtype, rng):
    weight = rng.integers(-3, 4, (vocab, depth)) / 8
    return weight, HeadWeights(mx.array(weight).astype(dtype))


def packed(vocab, depth, dtype, bits, group, rng):
    words = rng.integers(0, 2**32, (vocab, depth * bits // 32), dtype=np.uint64).astype(np.uint32)
    scales = 2.0 ** rng.integers(-8, -5, (vocab, depth // group))
    biases = -(2.0 ** (bits - 1)) * scales
    weights = mx.array(words), mx.array(scales).astype(dtype), mx.array(biases).astype(dtype)
    plain = mx.dequantize(
        words := weights[0], mx.array(scales, mx.float32), mx.array(biases, mx.float32), group_size=group, bits=bits
    )
    return np.array(plain, np.float64), HeadWeights(words, *weights[1:], group, bits)


def rounded(values, dtype):
    return np.array(mx.array(values.astype(np.float32)).astype(dtype).astype(mx.float32), np.float64)


def case(rows, vocab, depth, k, dtype, *, bits=None, group=64, soft_cap=None, size=1.0, launch=None, seed=0):
    rng = np.random.default_rng(seed)
    weights, head = dense(vocab, depth, dtype, rng) if bits is None else packed(vocab, depth, dtype, bits, group, rng)
    hidden = rng.integers(-9, 10, (rows, depth)) * size
    got = head_top_k(
        mx.array(hidden).astype(dtype), head, k, soft_cap=soft_cap, launch=launch or HostLaunch(mode="check")
    )
    logits = rounded(hidden @ weights.T, dtype)
    if soft_cap:
        logits = rounded(rounded(np.tanh(rounded(logits / soft_cap, dtype)), dtype) * soft_cap, dtype)
    return (mx.array(hidden).astype(dtype), head, got), logits


def check(got, logits, k):
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    np.testing.assert_array_equal(got.token_ids, order)
    np.testing.assert_array_equal(got.logits, np.take_along_axis(logits, order, -1))
    best = logits.max(-1)
    np.testing.assert_allclose(got.log_sum, best + np.log(np.exp(logits - best[:, None]).sum(-1)), rtol=2e-6, atol=1e-5)
    assert (got.token_ids.dtype, got.logits.dtype, got.log_sum.dtype) == (mx.int32, mx.float32, mx.float32)


@pytest.mark.parametrize(
    ("rows", "vocab", "depth", "k", "dtype", "bits"),
    [
        (2, 300, 64, 1, mx.float16, 4),  # the last tile is not full
        (3, 128, 192, 2, mx.float16, 4),
        (8, 131, 128, 8, mx.float16, 4),
        (2, 7, 64, 7, mx.float16, 4),  # every token, in one tile
        (9, 200, 96, 2, mx.bfloat16, None),
        (16, 65, 32, 32, mx.bfloat16, None),
    ],
)
def test_equals_sorting_all_logits(rows, vocab, depth, k, dtype, bits):
    (_, _, got), logits = case(rows, vocab, depth, k, dtype, bits=bits)
    check(got, logits, k)


def test_ties_go_to_the_smaller_id_across_tiles():
    """Equal rows of weights in several tiles: the ids come in order."""
    hidden = mx.ones((2, 32), mx.bfloat16)
    got = head_top_k(
        hidden.astype(mx.bfloat16), HeadWeights(mx.ones((300, 32), mx.bfloat16)), 8, launch=HostLaunch(mode="check")
    )
    assert got.token_ids.tolist() == [list(range(8))] * 2
    np.testing.assert_allclose(got.log_sum, 32 + np.log(300), rtol=1e-6)


@pytest.mark.parametrize("soft_cap", [30.0, 2.0])
def test_soft_cap_rounds_as_the_model_does(soft_cap):
    """A small cap makes ties that the logits did not have."""
    (hidden, head, got), logits = case(5, 200, 96, 4, mx.bfloat16, soft_cap=soft_cap)
    check(got, logits, 4)
    want = head_top_k_reference(hidden, head, 4, soft_cap=soft_cap)
    np.testing.assert_allclose(got.logits, want.logits, rtol=2**-7)


def test_huge_logits_do_not_overflow():
    (_, _, got), logits = case(9, 200, 96, 2, mx.bfloat16, size=2.0**100)
    check(got, logits, 2)
    assert np.isfinite(np.array(got.log_sum)).all()


def test_logits_are_never_written():
    """What the launches write is a tile's list per row: k entries of 8 bytes and two sums."""
    launch = HostLaunch(mode="check")
    (_, head, got), logits = case(8, 300, 64, 1, mx.float16, bits=4, launch=launch)
    check(got, logits, 1)
    first, merge = launch.launches
    assert first.bytes_read["weight"] == head.weight.nbytes
    assert sum(first.bytes_written.values()) == 8 * 3 * (8 + 8)
    assert sum(merge.bytes_read.values()) <= 2 * 8 * 3 * (8 + 8) + 2 * 8 * 256 * 8
    assert sum(merge.bytes_written.values()) == 8 * (2 * 4 + 4)


def test_reference_agrees_in_fp32():
    rng = np.random.default_rng(3)
    for weights, head in (dense(70, 64, mx.float32, rng), packed(70, 64, mx.float32, 8, 32, rng)):
        hidden = rng.integers(-2, 3, (4, 64))
        check(head_top_k_reference(mx.array(hidden).astype(mx.float32), head, 5), hidden @ weights.T, 5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize(("bits", "group"), [(None, 64), (4, 32), (4, 128), (8, 64), (6, 64)])
def test_all_formats(bits, group, dtype):
    for rows in (2, 3, 9, 17, 32):
        for vocab, k in ((1, 1), (129, 8), (1000, 16)):
            (_, _, got), logits = case(rows, vocab, 256, k, dtype, bits=bits, group=group)
            check(got, logits, k)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_many_tiles(bits):
    """More lists than the merge has threads."""
    (_, _, got), logits = case(2, 40_000, 32, 3, mx.float16, bits=bits, group=32, launch=HostLaunch(mode="fast"))
    check(got, logits, 3)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_no_undefined_behaviour(bits):
    (_, _, got), logits = case(3, 140, 64, 4, mx.float16, bits=bits, launch=HostLaunch(mode="asan"))
    check(got, logits, 4)
