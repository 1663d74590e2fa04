"""Best-first construction of the draft tree (DDTree, arXiv 2604.12989, Prop. 2-3)."""

import math
from heapq import heappop, heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import NextTokens, candidate_lattice

MAX_BUDGET = 1024


def build_tree(
    root: int,
    token_ids: NDArray[np.integer],
    log_probs: NDArray[np.floating],
    budget: int,
) -> DraftTree:
    """The `budget` heaviest prefixes of a block of candidates.

    root: the bonus token.
    token_ids: (L, K) candidate tokens of draft positions 1..L, distinct at each position.
    log_probs: (L, K) natural log-probabilities over the *whole* vocabulary, descending at each position.
        Or (L, K, K): log_probs[d, r] scores the candidates of position d after candidate r of
        position d - 1, in any order, for drafters whose score depends on the parent's token
        (at d = 0 the parent is the root and r = 0 is read).
    budget: nodes without the root, 0..1024; fewer come out when the candidates run out.

    Raises OptionError for a budget out of range.
    """
    return grow_tree(root, candidate_lattice(token_ids, np.asarray(log_probs)), budget)


def grow_tree(root: int, first: NextTokens, budget: int) -> DraftTree:
    """The `budget` heaviest prefixes of a lattice, whose `first` tokens are the root's children.

    A prefix weighs the sum of its tokens' scores.  The heap holds the heaviest prefixes that are not in the tree yet;
    each one that is popped becomes a node and offers two others in its place: its next sibling and its first child.
    Both weigh no more than the node, so whatever is popped is the heaviest prefix that is left.

    Candidates of probability 0 (-inf) never enter.  Equal weights are taken in the order in which
    they were offered, so the result is deterministic.  Raises OptionError for a budget out of range.
    """
    if not 0 <= budget <= MAX_BUDGET:
        raise OptionError(f"tree budget {budget} is out of range: use 0 (no draft) to {MAX_BUDGET} nodes")
    tokens = [root]
    parents = [-1]
    depths = [0]
    weights = [0.0]
    # (-weight, number of the offer, parent, rank among its children, these).  Numbers differ, so no more is compared.
    heap: list[tuple[float, int, int, int, NextTokens]] = []
    offers = 1
    if first.scores and first.scores[0] > -math.inf:
        heap.append((-first.scores[0], 0, 0, 0, first))
    while heap and len(tokens) <= budget:
        # 1. The heaviest prefix that is left becomes a node.
        negative_weight, _, parent, rank, siblings = heap[0]
        node = len(tokens)
        weight = -negative_weight
        tokens.append(siblings.token_ids[rank])
        parents.append(parent)
        depths.append(depths[parent] + 1)
        weights.append(weight)
        # 2. Its next sibling may come next, in its place on the heap.
        children = siblings.after[rank]
        scores = siblings.scores
        rank += 1
        if rank < len(scores) and scores[rank] > -math.inf:
            heapreplace(heap, (-(weights[parent] + scores[rank]), offers, parent, rank, siblings))
            offers += 1
        else:
            heappop(heap)
        # 3. So may its first child.
        if children is not None and children.scores and children.scores[0] > -math.inf:
            heappush(heap, (-(weight + children.scores[0]), offers, node, 0, children))
            offers += 1
    return DraftTree(
        np.array(tokens, np.int32),
        np.array(parents, np.int32),
        np.array(depths, np.int32),
        np.array(weights, np.float32),
    )
