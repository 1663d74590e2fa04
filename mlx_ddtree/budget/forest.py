"""tree_budget='auto' for several branches: which of all branches' nodes are worth a row of their common forward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.calibration import Trust
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import Candidates, candidate_lattice

MOST_NODES = 64
"""Nodes of all branches together: rows beyond this cost more than they bring on the machines that are known."""
NEWEST = 0.2
"""Weight of the newest round in what is known of a round's seconds: about five rounds are remembered."""
LONGEST_REST = 16
"""Rounds without a draft, after which one is tried again in any case."""


class ForestBudget:
    """The size with the most expected tokens a second, from the pair's measured costs and calibrated drafts.

    DDTree's argument (arXiv 2604.12989, Prop. 1) holds for the trees together: the expected number of accepted
    nodes is the sum of their prefixes' weights, so the heaviest nodes of all branches are the ones to verify.

    scale: seconds that a verification takes for each second of the cost table.
    beside_seconds: what a drafted round takes beside its verification.
    expected: accepted nodes that the last round was planned with.
    """

    def __init__(self, profile: Profile) -> None:
        self.cost = profile.cost
        self.calibration = profile.draft_calibration(greedy=False)
        self.trust = Trust()
        self.scale = 1.0
        self.beside_seconds = 0.0
        self.expected = 0.0
        self._drafted = False
        self._rests_left = 0
        self._next_rest = 1

    def rests(self) -> bool:
        """Whether to leave out the draft this time, because lately none was worth its time."""
        self._drafted = self._rests_left <= 0
        self._rests_left -= 1
        self.expected = 0.0
        return not self._drafted

    def trees(self, roots: Sequence[int], candidates: Sequence[Candidates], context: int) -> list[DraftTree]:
        """The heaviest nodes of all branches' trees, as many as pay.

        roots, candidates: by branch.  context: tokens that the forward attends to.
        """
        most = min(MOST_NODES, max(0, self.cost.rows[-1] - len(roots)))
        # 1. A tree for every branch, large enough for the case that it gets all nodes.
        trees = [self._grown(root, drafted, most) for root, drafted in zip(roots, candidates, strict=True)]
        # 2. All their nodes by weight.  A stable order takes the first nodes of a tree first, also among equals.
        weights = np.concatenate([np.exp(tree.log_weights[1:].astype(np.float64)) for tree in trees])
        owners = np.repeat(np.arange(len(trees)), [len(tree) - 1 for tree in trees])
        heaviest = np.argsort(-weights, kind="stable")[:most]
        # 3. The number of them that gives most tokens a second; every branch gets one token without any.
        tokens = len(roots) + np.concatenate([[0.0], np.cumsum(weights[heaviest])])
        nodes = self._best_size(tokens, len(roots), context)
        self.expected = float(tokens[nodes]) - len(roots)
        sizes = np.bincount(owners[heaviest[:nodes]], minlength=len(trees))
        return [tree.prefix(int(size)) for tree, size in zip(trees, sizes, strict=True)]

    def _grown(self, root: int, drafted: Candidates, nodes: int) -> DraftTree:
        spine, off_spine = self.calibration.apply(drafted.log_probs, self.trust.factor)
        return grow_tree(root, candidate_lattice(drafted.token_ids, spine, off_spine), nodes)

    def _best_size(self, tokens: NDArray[np.float64], roots: int, context: int) -> int:
        """How many nodes give most tokens a second, by the expected tokens (n,) of 0..n-1 nodes.

        The draft is there already.  Where not even the best size would have paid for it, the next rounds rest.
        """
        rows = roots + np.arange(len(tokens))
        seconds = self.scale * np.interp(rows, self.cost.rows, self.cost.verification(context))
        rates = tokens / (seconds + self.beside_seconds)
        best = int(np.argmax(rates))
        rate_without_draft = tokens[0] / seconds[0]
        if rates[best] > rate_without_draft:
            self._next_rest = 1
        else:
            self._rests_left = self._next_rest
            self._next_rest = min(2 * self._next_rest, LONGEST_REST)
        return best

    def saw(self, rows: int, context: int, accepted: int, verify_seconds: float, other_seconds: float) -> None:
        """Learn from how the round went: what it cost and how many nodes were accepted.

        One round counts as twice the known time at most, because something else may have slowed it down.
        """
        table_seconds = float(np.interp(rows, self.cost.rows, self.cost.verification(context)))
        scale = min(verify_seconds / table_seconds, 2 * self.scale)
        self.scale += NEWEST * (scale - self.scale)
        if self._drafted:
            weight = NEWEST if self.beside_seconds else 1.0
            self.beside_seconds += weight * (other_seconds - self.beside_seconds)
            self.trust.update(self.expected, accepted)
