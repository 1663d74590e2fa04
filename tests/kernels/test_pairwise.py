"""Scores of pairs are those of a softmax over the whole vocabulary, computed in full."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.pairwise import finish_pairwise, start_pairwise


def by_hand(logits, token_ids, edges):
    """Change the candidates' logits after each parent, and normalise over all V."""
    length, k = token_ids.shape
    result = np.zeros((length, k, k))
    for d, r in np.ndindex(length, k):
        changed = logits[d].astype(np.float64)
        changed[token_ids[d]] += edges[d, r]
        best = changed.max()
        result[d, r] = (changed - best - np.log(np.exp(changed - best).sum()))[token_ids[d]]
    return result


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize(("vocab", "k"), [(50, 6), (6, 6), (50, 1)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_pairs_share_the_whole_vocabularys_probability(scale, vocab, k, dtype):
    """Also where the candidates are all there is, and where nearly all the probability is theirs or nobody's."""
    rng = np.random.default_rng(0)
    logits = mx.array(scale * rng.normal(size=(5, vocab)).astype(np.float32)).astype(dtype)
    edges = (scale * rng.normal(size=(5, k, k))).astype(np.float32)
    token_ids, log_probs = finish_pairwise(start_pairwise(logits, k, lambda ids: mx.array(edges)), k)
    logits = np.array(logits.astype(mx.float32))
    assert [set(row) for row in token_ids.tolist()] == [set(row) for row in np.argsort(-logits)[:, :k].tolist()]
    assert token_ids.dtype == np.int32 and log_probs.dtype == np.float32
    found = np.exp(log_probs.astype(np.float64))
    np.testing.assert_allclose(found, np.exp(by_hand(logits, token_ids, edges)), atol=2e-6, rtol=2e-3)
    assert (found.sum(axis=-1) < 1 + 1e-5).all()


def test_edges_are_asked_for_the_candidates():
    logits = mx.array(np.random.default_rng(1).normal(size=(3, 20)).astype(np.float32))
    asked = []

    def edges(token_ids):
        asked.append(token_ids)
        return mx.zeros((3, 4, 4))

    token_ids, log_probs = finish_pairwise(start_pairwise(logits, 4, edges), 4)
    np.testing.assert_array_equal(np.array(asked[0]), token_ids)
    assert (log_probs == log_probs[:, :1]).all()  # no edge: no parent matters
