"""The accept walk keeps the longest path that agrees with the target, and nothing else."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.tree import DraftTree, accept

from .trees import draft_trees

VOCAB = 6


@st.composite
def verified_trees(draw):
    tree = draw(draft_trees(vocab=VOCAB))
    return tree, draw(st.lists(st.integers(0, VOCAB - 1), min_size=len(tree), max_size=len(tree)))


def agrees(tree, target, node):
    """The target chose every token of the node's path."""
    path = tree.path_to(node)
    return all(target[parent] == tree.token_ids[child] for parent, child in itertools.pairwise(path))


@given(verified_trees())
def test_path_is_the_longest_that_agrees(case):
    tree, target = case
    path = accept(tree, target)
    assert path == tree.path_to(path[-1])
    assert agrees(tree, target, path[-1])
    assert len(path) == max(tree.depths[n] + 1 for n in range(len(tree)) if agrees(tree, target, n))


@given(verified_trees())
def test_bonus_token_is_no_child(case):
    """The token after the path was not drafted there, so it is a new one and becomes the next root."""
    tree, target = case
    last = accept(tree, np.array(target))[-1]
    assert target[last] not in tree.token_ids[tree.parents == last]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.data())
def test_a_chain_is_accepted_up_to_its_first_mistake(tokens, data):
    target = data.draw(st.lists(st.integers(0, 2), min_size=len(tokens), max_size=len(tokens)))
    agreeing = 0
    while agreeing < len(tokens) - 1 and target[agreeing] == tokens[agreeing + 1]:
        agreeing += 1
    assert accept(DraftTree.chain(np.array(tokens)), target) == list(range(agreeing + 1))


def test_equal_tokens_in_other_branches_are_not_confused():
    """Token 5 stands under both children; only the accepted child's own 5 is taken."""
    tree = DraftTree(
        np.array([1, 2, 3, 5, 5]), np.array([-1, 0, 0, 1, 2]), np.array([0, 1, 1, 2, 2]), np.zeros(5, np.float32)
    )
    assert accept(tree, [3, 5, 5, 0, 0]) == [0, 2, 4]
    assert accept(tree, [2, 5, 5, 0, 0]) == [0, 1, 3]
    assert accept(tree, [4, 5, 5, 0, 0]) == [0]
