"""Top-k log-probabilities equal a full sort in float64, by MLX, by numpy and by the kernels alike."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.kernels import topk

from ..metal_host import HostLaunch, missing_compiler

LAUNCH = HostLaunch(mode="check")
needs_clang = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize(("rows", "vocab", "k"), [(1, 1, 1), (3, 7, 1), (7, 33, 5), (15, 1000, 64), (2, 5, 5)])
def test_equals_a_full_sort(rows, vocab, k, dtype):
    logits = (mx.random.normal((rows, vocab), key=mx.random.key(vocab)) * 3).astype(dtype)
    token_ids, log_probs = topk.top_k_log_probs(logits, k)
    values = np.array(logits.astype(mx.float32), np.float64)
    values -= np.log(np.exp(values).sum(-1, keepdims=True))
    np.testing.assert_allclose(log_probs, -np.sort(-values, axis=-1)[:, :k], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(values, token_ids, -1), log_probs, atol=1e-5)
    assert all(len(set(row)) == k for row in token_ids.tolist())


@pytest.mark.parametrize("k", [1, 4, 50])
def test_both_ways_agree(k):
    logits = mx.random.normal((7, 300), key=mx.random.key(0)) * 3
    by_mlx, by_numpy = topk.finish_top_k(topk._by_mlx(logits, k), k), topk.finish_top_k(logits, k)
    np.testing.assert_array_equal(by_mlx[0], by_numpy[0])
    np.testing.assert_allclose(by_mlx[1], by_numpy[1], atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 16, 100])
@pytest.mark.parametrize("vocab", [1024, 1531])
def test_a_large_vocabulary_is_sorted_as_a_small_one(vocab, k):
    """Where groups of tokens are compared first, ties across groups and impossible tokens included."""
    rng = np.random.default_rng(vocab + k)
    logits = rng.integers(-3, 9, (5, vocab)).astype(np.float32)
    logits[1] = -np.inf
    logits[1, [vocab - 1, 700, 3]] = 1.0
    logits[2] = 4.0
    token_ids, log_probs = topk.finish_top_k(mx.array(logits), k)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(token_ids, expected)
    log_sums = np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probs, np.take_along_axis(logits, expected, axis=1) - log_sums, atol=1e-4)


def test_rows_that_are_no_numbers_end_nothing():
    logits = np.full((2, 2048), np.nan, np.float32)
    logits[1] = np.arange(2048)
    token_ids, _ = topk.finish_top_k(mx.array(logits), 3)
    assert token_ids[1].tolist() == [2047, 2046, 2045]
    assert len(set(token_ids[0].tolist())) == 3


def test_ties_and_zero_probabilities():
    logits = mx.array([[1.0, -mx.inf, 1.0, 0.0, 1.0]])
    token_ids, log_probs = topk.top_k_log_probs(logits, 5)
    assert token_ids[0].tolist() == [0, 2, 4, 3, 1]
    assert log_probs[0, -1] == -np.inf


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 12), st.data())
def test_any_ties_and_impossible_tokens(rows, vocab, data):
    """With few distinct values and -inf: still the k largest, every id once and with its own value."""
    value = st.sampled_from([-np.inf, -2.0, 0.0, 1.5])
    logits = np.array([data.draw(st.lists(value, min_size=vocab, max_size=vocab)) for _ in range(rows)], np.float32)
    logits[:, data.draw(st.integers(0, vocab - 1))] = 0.0  # a distribution has at least one possible token
    k = data.draw(st.integers(1, vocab))
    for started in (topk._by_mlx(mx.array(logits), k), mx.array(logits)):
        token_ids, log_probs = topk.finish_top_k(started, k)
        assert (token_ids.dtype, log_probs.dtype) == (np.int32, np.float32)
        np.testing.assert_array_equal(np.take_along_axis(logits, token_ids, -1), -np.sort(-logits, axis=-1)[:, :k])
        for ids, row in zip(token_ids, log_probs, strict=True):
            assert len(set(ids.tolist())) == k
            assert list(zip(-row, ids, strict=True)) == sorted(zip(-row, ids, strict=True))


def test_probabilities_are_of_the_whole_vocabulary():
    """The k best of a uniform row have probability 1 / V each, not 1 / k."""
    _, log_probs = topk.top_k_log_probs(mx.zeros((2, 50)), 5)
    np.testing.assert_allclose(np.exp(log_probs), 1 / 50, rtol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_margins_are_the_distance_of_the_two_best(dtype):
    logits = (mx.random.normal((6, 70), key=mx.random.key(3)) * 3).astype(dtype)
    logits[2, 11] = logits[2].max()  # a tie
    values = np.sort(np.array(logits.astype(mx.float32)), axis=-1)
    margins = np.array(topk.top_margins(logits, mx.argmax(logits, axis=-1)))
    np.testing.assert_allclose(margins, values[:, -1] - values[:, -2], atol=1e-6)
    assert margins[2] == 0


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), max_size=9), st.integers(0, 9))
def test_the_lead_of_a_token_is_over_the_best_of_all_others(others, place):
    """Behind it or before it in the vocabulary; over nothing at all it is endless."""
    place = min(place, len(others))
    logits = np.array([*others[:place], 0.25, *others[place:]], np.float32)
    assert topk.lead_over_others(logits, place) == 0.25 - max(others, default=-np.inf)


def by_kernels(logits, k, launch=LAUNCH):
    """The kernels' result, checked to be in its final order before the host sees it."""
    started = topk.topk_logprobs(logits, k, launch=launch)
    token_ids, log_probs = topk.finish_top_k(started, k)
    assert (started.shape, started.dtype) == ((len(logits), 2 * k), mx.int32)
    np.testing.assert_array_equal(np.asarray(started)[:, :k], token_ids)
    return token_ids, log_probs


def check_kernels(logits, k, launch=LAUNCH):
    token_ids, log_probs = by_kernels(logits, k, launch)
    values = np.array(logits.astype(mx.float32), np.float64)
    order = np.argsort(-values, axis=-1, kind="stable")[:, :k]
    best = values.max(-1, keepdims=True)
    log_sum = best + np.log(np.exp(values - best).sum(-1, keepdims=True))
    np.testing.assert_array_equal(token_ids, order)
    want = np.take_along_axis(values, order, -1) - log_sum
    np.testing.assert_allclose(log_probs, want, rtol=1e-6, atol=1e-5)


@needs_clang
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize(("rows", "vocab", "k"), [(8, 1, 1), (3, 7, 1), (7, 33, 5), (2, 100, 64), (2, 5, 5)])
def test_kernels_equal_a_full_sort(rows, vocab, k, dtype):
    check_kernels((mx.random.normal((rows, vocab), key=mx.random.key(vocab)) * 3).astype(dtype), k)


@needs_clang
def test_kernels_over_several_chunks():
    """Ties and the best tokens on either side of a chunk's and a simdgroup's end."""
    logits = mx.random.normal((2, 9001), key=mx.random.key(5)).astype(mx.bfloat16)
    logits[0, [511, 512, 4095, 4096, 8191, 8192, 9000]] = 9.0
    logits[1, 4096:] = -mx.inf
    check_kernels(logits, 11)


@needs_clang
@pytest.mark.parametrize("vocab", [300, 9001])
def test_equal_logits_come_by_the_smaller_id(vocab):
    """Within a lane, between lanes, between simdgroups and between chunks; sorted afterwards they would hide it."""
    token_ids, _ = by_kernels(mx.zeros((2, vocab)), 40)
    np.testing.assert_array_equal(token_ids, np.broadcast_to(np.arange(40), (2, 40)))


@needs_clang
def test_equal_heads_of_many_lists_come_by_the_smaller_id():
    """A thread that holds several lists offers the smaller id of two that are equally good."""
    lists, k = 600, 5
    keys = np.full((1, lists, k), 1 << 31, np.uint32)
    ids = np.arange(lists * k, dtype=np.uint32).reshape(1, lists, k)
    entries = mx.array(np.stack([keys, ids], axis=-1))
    best, _ = topk.merge_top_k(entries, mx.zeros((1, lists, 2)) + 1, log_probs=False, launch=LAUNCH)
    np.testing.assert_array_equal(np.array(best)[0, :k], np.arange(k))


@needs_clang
@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(8, 40), st.data())
def test_kernels_with_any_ties_and_impossible_tokens(rows, vocab, data):
    value = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1.5])
    logits = np.array([data.draw(st.lists(value, min_size=vocab, max_size=vocab)) for _ in range(rows)], np.float32)
    logits[:, data.draw(st.integers(0, vocab - 1))] = 0.0
    check_kernels(mx.array(logits), data.draw(st.integers(1, min(vocab, topk.MOST))))


@needs_clang
def test_kernels_with_huge_logits():
    check_kernels(mx.array([[1e38, 3.3e38, -3.3e38, 0.0] * 3, [-1e38] * 12]), 4)


@needs_clang
@pytest.mark.parametrize("lists", [255, 600])
def test_more_lists_than_threads_are_merged(lists):
    """As the LM head leaves them, one a tile; some lists are short."""
    rng, k = np.random.default_rng(lists), 7
    keys = np.sort(rng.integers(1 << 31, (1 << 31) + 99, (2, lists, k)).astype(np.uint32), axis=-1)[..., ::-1].copy()
    keys[0, -1] += 1000  # one list has all of a row's best
    ids = np.broadcast_to(np.arange(lists * k, dtype=np.uint32).reshape(lists, k), keys.shape).copy()
    keys[:, 3, 2:], ids[:, 3, 2:] = 0, 0x7FFFFFFF
    sums = np.stack([rng.normal(size=(2, lists)) * 9, rng.random((2, lists)) + 1], axis=-1).astype(np.float32)
    entries = mx.array(np.stack([keys, ids], axis=-1))
    best, log_sums = topk.merge_top_k(entries, mx.array(sums), log_probs=False, launch=LAUNCH)
    order = np.lexsort((ids.reshape(2, -1), -keys.reshape(2, -1).astype(np.int64)), axis=-1)[:, :k]
    np.testing.assert_array_equal(np.array(best)[:, :k], np.take_along_axis(ids.reshape(2, -1), order, -1))
    want = np.take_along_axis(keys.reshape(2, -1), order, -1) - np.uint32(1 << 31)  # the keys of floats >= 0
    np.testing.assert_array_equal(np.array(best)[:, k:], want)
    sums = sums.astype(np.float64)
    np.testing.assert_allclose(log_sums, np.log((sums[..., 1] * np.exp(sums[..., 0])).sum(-1)), rtol=1e-6)


@needs_clang
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("k", [1, 8, 64])
def test_kernels_over_a_vocabulary(k, dtype):
    logits = (mx.random.normal((3, 151_936), key=mx.random.key(k)) * 3).astype(dtype)
    check_kernels(logits, k, HostLaunch(mode="fast"))


@needs_clang
@pytest.mark.slow
def test_kernels_have_no_undefined_behaviour():
    check_kernels(mx.random.normal((2, 5000), key=mx.random.key(1)), 9, HostLaunch(mode="asan"))
