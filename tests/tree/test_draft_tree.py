"""Masks, paths and chains of a draft tree."""

import numpy as np
import pytest
from hypothesis import given

from mlx_ddtree.tree import DraftTree

from .trees import draft_trees, random_tree


def mask_by_walking(tree: DraftTree) -> np.ndarray:
    mask = np.zeros((len(tree), len(tree)), bool)
    for node in range(len(tree)):
        ancestor = node
        while ancestor >= 0:
            mask[node, ancestor] = True
            ancestor = tree.parents[ancestor]
    return mask


def unpacked(bits: np.ndarray, nodes: int) -> np.ndarray:
    """Bit j % 32 of word j // 32, read one at a time."""
    assert bits.dtype == np.uint32
    return np.array([[bool(row[j // 32] >> np.uint32(j % 32) & 1) for j in range(nodes)] for row in bits])


@given(draft_trees())
def test_mask_equals_walking_the_parents(tree):
    np.testing.assert_array_equal(tree.ancestor_mask(), mask_by_walking(tree))


@given(draft_trees(max_nodes=70))
def test_bits_equal_the_mask(tree):
    np.testing.assert_array_equal(unpacked(tree.ancestor_bits(), len(tree)), tree.ancestor_mask())


@pytest.mark.parametrize("size", [1, 31, 32, 33, 65, 1025])
def test_bits_at_word_boundaries(size):
    """Sizes around a word and at the largest budget; bits behind the last node are clear."""
    tree = random_tree(size - 1)
    bits = tree.ancestor_bits()
    assert bits.shape == (size, (size + 31) // 32)
    padded = np.unpackbits(bits.astype("<u4").view(np.uint8), axis=1, bitorder="little").astype(bool)
    np.testing.assert_array_equal(padded[:, :size], mask_by_walking(tree))
    assert not padded[:, size:].any()


@given(draft_trees())
def test_path_to_is_the_mask_row_in_order(tree):
    for node in range(len(tree)):
        path = tree.path_to(node)
        assert path[0] == 0 and path[-1] == node
        assert path == np.flatnonzero(tree.ancestor_mask()[node]).tolist()
        assert tree.depths[path].tolist() == list(range(len(path)))


@given(draft_trees())
def test_every_prefix_is_a_tree(tree):
    """Cutting nodes off the end changes nothing among those that stay."""
    for nodes in range(len(tree)):
        mask = tree.prefix(nodes).ancestor_mask()
        np.testing.assert_array_equal(mask, tree.ancestor_mask()[: nodes + 1, : nodes + 1])


@given(draft_trees())
def test_prefixes_are_chains_up_to_the_first_branch(tree):
    for nodes in range(len(tree)):
        parents = tree.parents[: nodes + 1].tolist()
        assert (nodes <= tree.chain_nodes) == (parents == list(range(-1, nodes)))


def test_chain_is_the_linear_block():
    log_probs = np.log(np.array([0.5, 0.25]))
    chain = DraftTree.chain(np.array([9, 4, 7]), log_probs)
    assert chain.is_chain
    assert chain.path_to(2) == [0, 1, 2]
    np.testing.assert_array_equal(chain.ancestor_mask(), np.tri(3, dtype=bool))
    np.testing.assert_allclose(chain.expected_accepted(), [0, 0.5, 0.5 + 0.125])


def test_a_branch_is_no_chain():
    tree = DraftTree(np.arange(3), np.array([-1, 0, 0]), np.array([0, 1, 1]), np.zeros(3, np.float32))
    assert not tree.is_chain
    assert DraftTree.root(7).is_chain
