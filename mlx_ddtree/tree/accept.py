"""The accept walk: follow the target's own choices down the tree."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.tree.draft_tree import DraftTree


def accept(tree: DraftTree, target_token_ids: Sequence[int] | NDArray[np.integer]) -> list[int]:
    """Node indices of the longest path that agrees with the target, root first.

    target_token_ids: (N,) the token the target chose (argmax or sample) after each node.

    The acceptance length tau is len(result); the new bonus token is target_token_ids[result[-1]].
    Every emitted token is the target's own choice given its prefix, so the output is the
    target's, whatever the tree was.
    """
    node = 0
    path = [node]
    while True:
        agrees = (tree.parents == node) & (tree.token_ids == target_token_ids[node])
        children = np.flatnonzero(agrees)  # one at most: the tokens of siblings differ
        if not len(children):
            return path
        node = int(children[0])
        path.append(node)
