"""A mask that is made before its tree is known is the tree's, once that is filled in."""

import numpy as np
import pytest

from mlx_ddtree.target.blank_rows import BlankRows
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import build_tree


@pytest.mark.parametrize("window", [None, 4])
def test_a_blank_mask_becomes_the_trees(window):
    log_probs = np.log(np.array([[0.6, 0.3], [0.5, 0.4]]))
    tree = build_tree(1, np.array([[2, 3], [4, 5]]), log_probs, 5)
    blank = BlankRows(10, 8)
    mask = blank.mask(10, window)
    blank.fill(tree)
    np.testing.assert_array_equal(np.array(mask), np.array(TreeRows(tree, 10, 8).mask(10, window)))
