"""Paths through candidates: whose children a row scores, for drafters of either kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.tree.build import build_tree
from mlx_ddtree.tree.lattice import Candidates, best_chain, candidate_lattice


@st.composite
def pairs(draw, max_length=4, max_k=4):
    """token_ids (L, K) and finite scores (L, K, K) without ties."""
    length, k = draw(st.integers(1, max_length)), draw(st.integers(1, max_k))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens = np.array([rng.permutation(9)[:k] for _ in range(length)], np.int32)
    scores = -rng.permutation(length * k * k).reshape(length, k, k) / 50 - 0.01
    return Candidates(tokens, scores.astype(np.float32))


@given(pairs())
def test_the_greedy_path_is_the_lattices_best_chain(candidates):
    tokens, scores = best_chain(candidate_lattice(*candidates))
    path = candidates.greedy()
    assert path.token_ids[:, 0].tolist() == tokens
    np.testing.assert_array_equal(path.log_probs[:, 0], np.float32(scores))
    tree = build_tree(0, *path, 100)
    assert tree.is_chain and tree.token_ids[1:].tolist() == tokens


@given(pairs(), st.lists(st.integers(0, 10), max_size=6))
def test_rows_along_a_path_score_its_tokens_after_their_parents(candidates, path):
    """Best first, up to the block's end, and no further than a parent that was no candidate."""
    rows = candidates.along(path)
    count = 0
    for depth, token in enumerate(path[: len(candidates.token_ids)]):
        parent = candidates.token_ids[depth - 1].tolist().index(path[depth - 1]) if depth else 0
        expected = dict(zip(candidates.token_ids[depth].tolist(), candidates.log_probs[depth, parent], strict=True))
        assert dict(zip(rows.token_ids[depth].tolist(), rows.log_probs[depth], strict=True)) == expected
        count += 1
        if token not in candidates.token_ids[depth]:
            break
    assert len(rows.token_ids) == len(rows.log_probs) == count
    assert (rows.log_probs[:, 1:] <= rows.log_probs[:, :-1]).all()


@pytest.mark.parametrize("path", [[], [1], [9, 9], [2, 4, 6, 8]])
def test_a_block_drafters_rows_do_not_depend_on_the_path(path):
    token_ids, log_probs = np.array([[1, 2], [3, 4], [5, 6]], np.int32), np.log([[0.5, 0.3], [0.6, 0.2], [0.7, 0.1]])
    rows = Candidates(token_ids, log_probs).along(path)
    np.testing.assert_array_equal(rows.token_ids, token_ids[: len(path)])
    np.testing.assert_array_equal(rows.log_probs, log_probs[: len(path)])
    assert Candidates(token_ids, log_probs).greedy().token_ids.tolist() == [[1], [3], [5]]
