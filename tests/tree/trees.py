"""Random trees of every shape and random candidates for them, for tests of what is done with a tree."""

import numpy as np
from hypothesis import strategies as st

from mlx_ddtree.tree import DraftTree

ROOT = 999
# Few distinct values make ties common; sums of sixteenths are exact in float32 and float64.
SCORES = st.one_of(st.integers(-64, 0).map(lambda n: n / 16), st.just(-np.inf))


@st.composite
def marginals(draw, max_length=4, max_k=4):
    """token_ids (L, K), distinct in a row, and log_probs (L, K), each row descending."""
    length, k = draw(st.integers(0, max_length)), draw(st.integers(1, max_k))
    rows = [sorted(draw(st.lists(SCORES, min_size=k, max_size=k)), reverse=True) for _ in range(length)]
    tokens = [draw(st.permutations(range(k + 2)))[:k] for _ in range(length)]
    return np.array(tokens, np.int32).reshape(length, k), np.array(rows, np.float32).reshape(length, k)


def prefixes_of(tree: DraftTree):
    """{prefix of tokens: log weight} of the tree's nodes, in pop order."""
    return {
        tuple(tree.token_ids[tree.path_to(i)[1:]].tolist()): float(tree.log_weights[i]) for i in range(1, len(tree))
    }


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
