"""tree_budget='auto' for several branches: which of all branches' nodes are worth a row of their common forward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlx_ddtree.budget.calibration import Trust
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.candidates import Candidates
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import candidate_lattice

MOST = 64
"""Nodes of one branch."""
RATE = 0.2
LONGEST_REST = 16


class ForestBudget:
    """The size with the most expected tokens a second, from the pair's measured costs and calibrated drafts.

    DDTree's argument (arXiv 2604.12989, Prop. 1) holds for the trees together: the expected number of accepted
    nodes is the sum of their prefixes' weights, so the heaviest nodes of all branches are the ones to verify.
    """

    def __init__(self, profile: Profile) -> None:
        self.cost, self.calibration = profile.cost, profile.draft_calibration(greedy=False)
        self.trust = Trust()
        self.scale, self.rest = 1.0, 0.0  # of the table's seconds; seconds of a drafted round beside them
        self.expected = 0.0
        self._drafted = False
        self._left, self._next_rest = 0, 1

    def rests(self) -> bool:
        """Whether to leave out the draft this time, because lately none was worth its time."""
        self._drafted, self._left = self._left <= 0, self._left - 1
        self.expected = 0.0
        return not self._drafted

    def trees(self, roots: Sequence[int], candidates: Sequence[Candidates], context: int) -> list[DraftTree]:
        """The heaviest nodes of all branches' trees, as many as pay."""
        most = min(MOST, max(0, self.cost.rows[-1] - len(roots)))
        grown = []
        for root, found in zip(roots, candidates, strict=True):
            spine, off_spine = self.calibration.apply(found.log_probs, self.trust.factor)
            grown.append(grow_tree(root, candidate_lattice(found.token_ids, spine, off_spine), most))
        weights = np.concatenate([np.exp(tree.log_weights[1:].astype(np.float64)) for tree in grown])
        owners = np.repeat(np.arange(len(grown)), [len(tree) - 1 for tree in grown])
        order = np.argsort(-weights, kind="stable")[:most]  # of a tree the first nodes first, also among equals
        tokens = len(roots) + np.concatenate([[0.0], np.cumsum(weights[order])])
        rows = len(roots) + np.arange(len(tokens))
        seconds = self.scale * np.interp(rows, self.cost.rows, self.cost.verification(context))
        nodes = int(np.argmax(tokens / (seconds + self.rest)))
        self.expected = float(tokens[nodes]) - len(roots)
        if tokens[nodes] / (seconds[nodes] + self.rest) > tokens[0] / seconds[0]:
            self._next_rest = 1
        else:  # not worth the draft, though it is there now
            self._left, self._next_rest = self._next_rest, min(2 * self._next_rest, LONGEST_REST)
        sizes = np.bincount(owners[order[:nodes]], minlength=len(grown))
        return [tree.prefix(int(size)) for tree, size in zip(grown, sizes, strict=True)]

    def saw(self, rows: int, context: int, accepted: int, verify_seconds: float, other_seconds: float) -> None:
        """How the round went: what it cost and how many nodes were accepted."""
        known = float(np.interp(rows, self.cost.rows, self.cost.verification(context)))
        self.scale += RATE * (min(verify_seconds / known, 2 * self.scale) - self.scale)
        if self._drafted:
            self.rest += (RATE if self.rest else 1.0) * (other_seconds - self.rest)
            self.trust.update(self.expected, accepted)
