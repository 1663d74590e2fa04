"""Random prefix trees for the tests of plans, and who sees what by definition."""

import numpy as np
from hypothesis import strategies as st

from mlx_ddtree.deft.plans import PrefixTree

SHAPES = ("chain", "star", "bushy", "forest", "deep")


def parents_of(shape, count, rng):
    """(count,) of a random tree; a forest has several tops."""
    if shape == "chain":
        return np.arange(-1, count - 1)
    if shape == "star":
        return np.minimum(np.arange(count) - 1, 0)
    lowest = {"bushy": 0, "forest": -1, "deep": None}[shape]
    draws = [rng.integers(max(0, i - 3) if lowest is None else lowest, i) if i else -1 for i in range(count)]
    return np.array(draws)


def random_tree(seed, *, shape=None, nodes=None, queries=None, prefix=None, longest=9, shuffled=True):
    """Runs of 0 to `longest` rows behind a first node of `prefix` rows."""
    rng = np.random.default_rng(seed)
    shape, count = shape or rng.choice(SHAPES), nodes or int(rng.integers(1, 40))
    parents, lengths = parents_of(shape, count, rng), rng.integers(0, longest + 1, count)
    lengths[0] = rng.integers(0, 50) if prefix is None else prefix
    at = rng.integers(0, count, queries or int(rng.integers(1, 60)))
    return PrefixTree(parents, lengths, at, rng.permutation(lengths.sum()) if shuffled else None)


@st.composite
def prefix_trees(draw, max_nodes=12, max_queries=12):
    """Small ones that hypothesis can shrink."""
    count = draw(st.integers(1, max_nodes))
    parents = np.array([draw(st.integers(-1, i - 1)) for i in range(count)])
    lengths = np.array(draw(st.lists(st.integers(0, 7), min_size=count, max_size=count)))
    at = np.array(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=max_queries)))
    slots = np.array(draw(st.permutations(range(int(lengths.sum())))), np.int64)
    return PrefixTree(parents, lengths, at, slots)


def visible(tree):
    """(Q, rows of the cache) bool by the definition: the runs of the query's node and of its ancestors."""
    slots = np.arange(tree.lengths.sum()) if tree.slots is None else tree.slots
    ends = np.cumsum(tree.lengths)
    mask = np.zeros((len(tree.query_nodes), int(ends[-1])), np.bool_)
    for query, at in enumerate(tree.query_nodes):
        node = at
        while node >= 0:
            mask[query, slots[ends[node] - tree.lengths[node] : ends[node]]] = True
            node = tree.parents[node]
    return mask
