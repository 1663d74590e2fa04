"""Best-first construction of the draft tree (DDTree, arXiv 2604.12989, Prop. 2-3)."""

from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import END, Row, candidate_rows

MAX_BUDGET = 1024


def build_tree(
    root: int,
    token_ids: NDArray[np.integer],
    log_probs: NDArray[np.floating],
    budget: int,
) -> DraftTree:
    """The `budget` heaviest prefixes of a block of candidates.

    root: the bonus token.
    token_ids: (L, K) candidate tokens of draft positions 1..L, distinct in a row.
    log_probs: (L, K) natural log-probabilities over the *whole* vocabulary, each row descending.
        Or (L, K, K): log_probs[d, r] scores the candidates of position d after candidate r of
        position d - 1, in any order, for drafters whose score depends on the parent's token
        (at d = 0 the parent is the root and r = 0 is read).
    budget: nodes without the root, 0..1024; fewer come out when the candidates run out.
    """
    return grow_tree(root, candidate_rows(token_ids, np.asarray(log_probs)), budget)


def grow_tree(root: int, first: Row, budget: int) -> DraftTree:
    """The `budget` heaviest prefixes of a lattice, whose `first` row holds the root's children.

    Candidates of probability 0 (-inf) never enter.  Equal weights are taken in the order in which
    they were pushed, so the result is deterministic.
    """
    if not 0 <= budget <= MAX_BUDGET:
        raise OptionError(f"tree budget {budget} is out of range: use 0 (no draft) to {MAX_BUDGET} nodes")
    tokens, parents, depths, weights = [root], [-1], [0], [0.0]
    rows = [first]  # of each node's children
    heap: list[tuple[float, int, int, int]] = []
    pushed = 0

    def push(parent: int, rank: int) -> None:
        """Offer the parent's rank-th best child."""
        nonlocal pushed
        scores = rows[parent].scores
        if rank < len(scores) and scores[rank] > -np.inf:
            heappush(heap, (-(weights[parent] + scores[rank]), pushed, parent, rank))
            pushed += 1

    push(0, 0)
    while heap and len(tokens) <= budget:
        weight, _, parent, rank = heappop(heap)
        row = rows[parent]
        tokens.append(row.token_ids[rank])
        parents.append(parent)
        depths.append(depths[parent] + 1)
        weights.append(-weight)
        rows.append(row.after[rank] or END)
        push(parent, rank + 1)
        push(len(tokens) - 1, 0)
    return DraftTree(
        np.array(tokens, np.int32),
        np.array(parents, np.int32),
        np.array(depths, np.int32),
        np.array(weights, np.float32),
    )
