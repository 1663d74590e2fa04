"""Top-k log-probabilities equal numpy's, for every type and size."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.kernels.topk import top_k_log_probs


def check(logits: mx.array, k: int) -> None:
    """Values equal numpy's; every id holds its value; order is descending, then by id."""
    exact = np.array(logits.astype(mx.float32), np.float64)
    ids, log_probs = top_k_log_probs(logits, k)
    assert ids.shape == log_probs.shape == (len(exact), k)
    assert (ids.dtype, log_probs.dtype) == (np.int32, np.float32)
    finite = np.where(np.isinf(exact), -1e30, exact)
    top = finite.max(-1, keepdims=True)
    normalised = exact - (np.log(np.exp(finite - top).sum(-1, keepdims=True)) + top)
    np.testing.assert_array_equal(np.take_along_axis(exact, ids, -1).min(-1), -np.sort(-exact, -1)[:, k - 1])
    np.testing.assert_allclose(log_probs, np.take_along_axis(normalised, ids, -1), atol=1e-4)
    np.testing.assert_allclose(log_probs, -np.sort(-normalised, -1)[:, :k], atol=1e-4)
    for row_ids, row in zip(ids, log_probs, strict=True):
        assert len(set(row_ids.tolist())) == k
        assert list(zip(-row, row_ids, strict=True)) == sorted(zip(-row, row_ids, strict=True))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (1, 7), (3, 129), (15, 1031), (7, 4099)])
def test_equals_numpy(rows, vocab, dtype):
    """16-bit logits of a large vocabulary tie often: only the value counts then."""
    logits = (mx.random.normal((rows, vocab), key=mx.random.key(vocab)) * 4).astype(dtype)
    for k in {1, min(8, vocab), vocab}:
        check(logits, k)


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 12), st.data())
def test_ties_and_impossible_tokens(rows, vocab, data):
    """Few distinct values and -inf: still the k largest, ties in order of the id."""
    value = st.sampled_from([-np.inf, -2.0, 0.0, 1.5])
    logits = np.array([data.draw(st.lists(value, min_size=vocab, max_size=vocab)) for _ in range(rows)], np.float32)
    logits[:, data.draw(st.integers(0, vocab - 1))] = 0.0  # a distribution has at least one possible token
    check(mx.array(logits), data.draw(st.integers(1, vocab)))


def test_probabilities_are_of_the_whole_vocabulary():
    """The k best of a uniform row have probability 1 / V each, not 1 / k."""
    _, log_probs = top_k_log_probs(mx.zeros((2, 50)), 5)
    np.testing.assert_allclose(np.exp(log_probs), 1 / 50, rtol=1e-5)
