"""The heap of DDTree finds the heaviest prefixes, whatever the candidates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree import DraftTree, build_tree

from .trees import ROOT, SCORES, marginals, prefixes_of


@st.composite
def parent_dependent(draw, max_length=3, max_k=3):
    """token_ids (L, K) and scores (L, K, K) in any order."""
    length, k = draw(st.integers(0, max_length)), draw(st.integers(1, max_k))
    count = length * k * k
    scores = np.array(draw(st.lists(SCORES, min_size=count, max_size=count)), np.float32).reshape(length, k, k)
    tokens = [draw(st.permutations(range(k + 2)))[:k] for _ in range(length)]
    return np.array(tokens, np.int32).reshape(length, k), scores


def all_prefixes(token_ids, log_probs):
    """{prefix of tokens: log weight} of every prefix of positive probability."""
    length, k = token_ids.shape
    weights = {}
    for depth in range(1, length + 1):
        for ranks in product(range(k), repeat=depth):
            if log_probs.ndim == 2:
                weight = sum(float(log_probs[d, r]) for d, r in enumerate(ranks))
            else:
                parents = (0, *ranks[:-1])
                weight = sum(float(log_probs[d, p, r]) for d, (p, r) in enumerate(zip(parents, ranks, strict=True)))
            if weight > -np.inf:
                weights[tuple(int(token_ids[d, r]) for d, r in enumerate(ranks))] = weight
    return weights


def check_against_enumeration(token_ids, log_probs, budget):
    tree = build_tree(ROOT, token_ids, log_probs, budget)
    everything = all_prefixes(token_ids, log_probs)
    heaviest = sorted(everything.values(), reverse=True)[:budget]
    nodes = prefixes_of(tree)
    assert len(nodes) == len(tree) - 1  # no node twice, so no token twice among siblings
    assert list(nodes.values()) == heaviest  # also: pop order never increases
    assert all(everything[prefix] == weight for prefix, weight in nodes.items())
    assert (tree.parents[1:] < np.arange(1, len(tree))).all() and tree.parents[0] == -1
    assert (tree.depths[1:] == tree.depths[tree.parents[1:]] + 1).all()
    assert tree.token_ids[0] == ROOT


@given(marginals(), st.integers(0, 90))
def test_nodes_are_the_heaviest_prefixes(candidates, budget):
    """Equal to brute force: ties, -inf, and budgets beyond the number of prefixes included."""
    check_against_enumeration(*candidates, budget)


@given(parent_dependent(), st.integers(0, 50))
def test_scores_that_depend_on_the_parent(candidates, budget):
    """A candidate's weight is read from its own parent's row, and rows may come in any order."""
    check_against_enumeration(*candidates, budget)


@given(marginals())
def test_parent_dependent_scores_that_do_not_depend_equal_marginals(candidates):
    token_ids, log_probs = candidates
    repeated = np.repeat(log_probs[:, None], log_probs.shape[1], axis=1)
    assert same_tree(build_tree(ROOT, token_ids, log_probs, 40), build_tree(ROOT, token_ids, repeated, 40))


@given(marginals(), st.integers(0, 90), st.integers(0, 90))
def test_a_smaller_budget_is_a_prefix_of_a_larger_one(candidates, small, large):
    """One build serves all budgets: prefix(n) of the pop order is the tree of budget n."""
    small, large = sorted((small, large))
    cut = build_tree(ROOT, *candidates, large).prefix(small)
    assert same_tree(cut, build_tree(ROOT, *candidates, small))


@given(marginals(), st.integers(0, 90))
def test_expected_accepted_sums_the_weights(candidates, budget):
    """Phi(n) is the total probability of the n heaviest prefixes, so Phi(0) = 0 and Phi <= L."""
    tree = build_tree(ROOT, *candidates, budget)
    phi = tree.expected_accepted()
    heaviest = sorted(all_prefixes(*candidates).values(), reverse=True)[:budget]
    np.testing.assert_allclose(phi, [0, *np.cumsum(np.exp(heaviest))], rtol=1e-6)


def test_ties_are_taken_in_push_order():
    """Deterministic under ties: the sibling offered first is popped first."""
    token_ids, log_probs = np.array([[5, 6], [7, 8]]), np.full((2, 2), np.log(0.5), np.float32)
    tree = build_tree(ROOT, token_ids, log_probs, 6)
    assert list(prefixes_of(tree)) == [(5,), (6,), (5, 7), (6, 7), (5, 8), (6, 8)]


@pytest.mark.parametrize("budget", [0, 1, 2, 31, 32, 33, 500, 1023, 1024])
def test_budgets_up_to_the_limit(budget):
    """Enough candidates give exactly `budget` nodes, never increasing in weight."""
    rng = np.random.default_rng(0)
    log_probs = -np.sort(rng.exponential(2.0, (15, 40)).astype(np.float32), axis=1)
    token_ids = np.stack([rng.permutation(1000)[:40] for _ in range(15)])
    tree = build_tree(ROOT, token_ids, log_probs, budget)
    assert len(tree) == budget + 1
    assert (np.diff(tree.log_weights) <= 0).all()


@pytest.mark.parametrize("budget", [-1, 1025])
def test_budgets_out_of_range(budget):
    with pytest.raises(OptionError, match=f"budget {budget} is out of range"):
        build_tree(ROOT, np.array([[1]]), np.array([[0.0]]), budget)


@pytest.mark.parametrize(
    "log_probs", [np.zeros((0, 4)), np.zeros((0, 4, 4)), np.full((3, 4), -np.inf), np.full((3, 4), np.nan)]
)
def test_without_candidates_only_the_root_is_left(log_probs):
    tree = build_tree(ROOT, np.zeros(log_probs.shape[:2], np.int32), log_probs, 8)
    assert same_tree(tree, DraftTree.root(ROOT))


def test_one_candidate_per_position_is_a_chain():
    log_probs = np.log([[0.9], [0.5], [0.7]]).astype(np.float32)
    tree = build_tree(ROOT, np.array([[4], [2], [4]]), log_probs, 16)
    assert tree.is_chain
    assert same_tree(tree, DraftTree.chain(np.array([ROOT, 4, 2, 4]), log_probs[:, 0]))


def same_tree(a: DraftTree, b: DraftTree) -> bool:
    return all(
        np.array_equal(x, y) for x, y in [(a.token_ids, b.token_ids), (a.parents, b.parents), (a.depths, b.depths)]
    ) and np.allclose(a.log_weights, b.log_weights)
