"""What of a draft is certain, because a grammar leaves no choice, and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import END, NextTokens

Constrain = Callable[[NextTokens], NextTokens]
"""From a draft's lattice to what of it may follow the text, and what must."""


def certain_tokens(first: NextTokens) -> int:
    """How many first tokens of a lattice are certain: alone in their rows, with the score 0."""
    count = 0
    while first.scores == [0.0]:
        first = first.after[0] or END
        count += 1
    return count


def likely_behind(first: NextTokens, least: float) -> NextTokens:
    """What may follow the best token of a lattice; nothing where that and the best one behind it are not as likely,
    together, as `least`."""
    behind = first.after[0] or END if first.token_ids else END
    if not behind.token_ids or first.scores[0] + behind.scores[0] < math.log(least):
        return END
    return behind


def doubtful(tree: DraftTree, chosen: Sequence[int]) -> tuple[float, int]:
    """How many of the best children of a tree's accepted nodes were expected to be right, and how many were; certain
    ones do not count.

    chosen: what the target said after each accepted node, root first.
    """
    expected = 0.0
    right = 0
    node = 0
    for token in chosen:
        children = np.flatnonzero(tree.parents == node)  # best first
        if not len(children):
            break
        chance = math.exp(tree.log_weights[children[0]] - tree.log_weights[node])
        if chance < 1.0:
            expected += chance
            right += int(tree.token_ids[children[0]] == token)
        found = children[tree.token_ids[children] == token]
        if not len(found):
            break
        node = int(found[0])
    return expected, right
