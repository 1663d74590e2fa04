"""Random trees of every shape, for tests of what is done with a tree."""

import numpy as np
from hypothesis import strategies as st

from mlx_ddtree.tree import DraftTree


@st.composite
def draft_trees(draw, max_nodes=40, vocab=6):
    """Any parents, siblings with distinct tokens."""
    tokens, parents, depths = [0], [-1], [0]
    free = [set(range(vocab))]
    for i in range(1, draw(st.integers(0, max_nodes)) + 1):
        parent = draw(st.sampled_from([p for p in range(i) if free[p]]))
        token = draw(st.sampled_from(sorted(free[parent])))
        free[parent].discard(token)
        free.append(set(range(vocab)))
        tokens.append(token)
        parents.append(parent)
        depths.append(depths[parent] + 1)
    weights = -np.arange(len(tokens), dtype=np.float32)
    return DraftTree(np.array(tokens, np.int32), np.array(parents, np.int32), np.array(depths, np.int32), weights)


def random_tree(nodes: int, seed: int = 0) -> DraftTree:
    """A tree of exactly `nodes` nodes, deep and wide."""
    rng = np.random.default_rng(seed)
    parents = np.array([-1, *(rng.integers(max(0, i - 9), i) for i in range(1, nodes + 1))], np.int32)
    depths = np.zeros(nodes + 1, np.int32)
    for i in range(1, nodes + 1):
        depths[i] = depths[parents[i]] + 1
    return DraftTree(np.arange(nodes + 1, dtype=np.int32), parents, depths, -np.arange(nodes + 1, dtype=np.float32))
