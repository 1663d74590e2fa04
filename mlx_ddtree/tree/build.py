"""Best-first construction of the draft tree (DDTree, arXiv 2604.12989, Prop. 2-3)."""

from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree.draft_tree import DraftTree

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

    Candidates of probability 0 (-inf, or NaN) never enter.  Equal weights are taken in the order
    in which they were pushed, so the result is deterministic.
    """
    if not 0 <= budget <= MAX_BUDGET:
        raise OptionError(f"tree budget {budget} is out of range: use 0 (no draft) to {MAX_BUDGET} nodes")
    order, scores = _sorted_children(np.asarray(log_probs))
    length = len(scores)

    tokens, parents, depths, weights = [root], [-1], [0], [0.0]
    ranks = [0]  # the node's candidate index at its position, which picks its children's row
    heap: list[tuple[float, int, int, int, int]] = []
    pushed = 0

    def push(parent: int, rank: int) -> None:
        """Offer the parent's rank-th best child."""
        nonlocal pushed
        depth = depths[parent]
        row = scores[depth][ranks[parent] if len(scores[depth]) > 1 else 0]
        if rank < len(row) and row[rank] > -np.inf:
            heappush(heap, (-(weights[parent] + row[rank]), pushed, parent, rank, depth))
            pushed += 1

    if length:
        push(0, 0)
    while heap and len(tokens) <= budget:
        weight, _, parent, rank, depth = heappop(heap)
        candidate = order[depth][ranks[parent]][rank] if order is not None else rank
        tokens.append(int(token_ids[depth, candidate]))
        parents.append(parent)
        depths.append(depth + 1)
        weights.append(-weight)
        ranks.append(candidate)
        push(parent, rank + 1)
        if depth + 1 < length:
            push(len(tokens) - 1, 0)
    return DraftTree(
        np.array(tokens, np.int32),
        np.array(parents, np.int32),
        np.array(depths, np.int32),
        np.array(weights, np.float32),
    )


def _sorted_children(log_probs: NDArray[np.floating]) -> tuple[list[list[list[int]]] | None, list[list[list[float]]]]:
    """(order, scores) as nested lists [L][R][K]; order is None where the rows come sorted."""
    log_probs = np.where(np.isnan(log_probs), -np.inf, log_probs)
    if log_probs.ndim == 2:
        return None, log_probs[:, None].tolist()
    order = np.argsort(-log_probs, axis=-1, kind="stable")
    return order.tolist(), np.take_along_axis(log_probs, order, -1).tolist()
