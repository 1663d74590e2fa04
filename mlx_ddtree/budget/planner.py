"""One sequence's rounds, planned: what to verify next, and what to learn from how it went.

Pure numpy, fed by decoding/adaptive.py while a model runs, and by studies/budget/simulate_machines.py from recorded
drafts.  A round of kind 'draft' asks the drafter, 'lookup' only copies a continuation that stands earlier
in the text, 'plain' is a step of plain decoding.  A copy also enters a drafted round's tree, as one more path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mlx_ddtree.budget.lookup import Copy, LookupIndex
from mlx_ddtree.budget.policy import BudgetPolicy, Choice
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.candidates import Candidates
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import NextTokens, add_chain, best_chain, candidate_lattice, off_spine_by_depth

LONGEST_COPY = 32
"""Tokens of a copied path; it may be longer than the drafter's block."""
FAINTEST = 0.02
"""A copied path ends where it is less probable than this."""


class Outcome(NamedTuple):
    """chosen: what the target said after each accepted node, root first.

    context: tokens in the cache before the round.  Seconds: of the whole round, of its verification and of
    its draft.
    """

    chosen: Sequence[int]
    context: int
    seconds: float
    verify_seconds: float
    draft_seconds: float


@dataclass
class Proposal:
    """What a round is about to verify, and why."""

    kind: str
    tree: DraftTree
    choice: Choice
    candidates: Candidates | None = None
    copy: Copy | None = None


class Planner:
    """greedy: whether the target takes the argmax; its choices are calibrated apart from samples.

    linear: chains only, and no copies (method 'dflash').  block_size: fixes it.
    """

    def __init__(self, profile: Profile, *, greedy: bool, linear: bool = False, block_size: int | None = None) -> None:
        self.profile, self.linear = profile, linear
        self.policy = BudgetPolicy(profile.cost, block_size, profile.survival(greedy))
        self.calibration = profile.draft_calibration(greedy)
        self.index = LookupIndex()
        self.top_k = 1 if linear else 16

    def pause(self, context: int) -> int:
        """Tokens to decode plainly before the next draft; 0 drafts now."""
        return self.policy.pause(context)

    def interrupted(self, left: int) -> None:
        """A pause ended for a copy, `left` tokens too early; what is left of it comes after the copy."""
        self.policy.interrupted(left)

    def copy_after(self, token_ids: Sequence[int]) -> Copy | None:
        """What followed the text's last tokens the last time they stood there."""
        if self.linear:
            return None
        self.index.extend(token_ids[len(self.index) :])
        return self.index.continuation(LONGEST_COPY)

    def without_draft(self, root: int, copy: Copy | None, context: int) -> Proposal | None:
        """A round that copies, where the drafter could add little; else None."""
        if copy is None or not self.policy.skips_drafter(self.profile.lookups.probability(copy.match, 1, 2), context):
            return None
        chances = self._chances(copy, None)
        chain = DraftTree.chain(np.array([root, *copy.token_ids[: len(chances)]]), np.log(chances))
        tree, choice = self._cut(chain, context)
        if choice.nodes == 0 or not self.policy.beats_plain(choice, context):
            return None
        return Proposal("lookup", tree, choice, None, copy)

    def next_block_size(self, context: int) -> int:
        return self.policy.next_block_size(context)

    def with_draft(self, root: int, candidates: Candidates, copy: Copy | None, context: int) -> Proposal:
        """The tree of the nodes that are worth their rows."""
        spine, off_spine = self.calibration.apply(candidates.log_probs, self.policy.trust.factor)
        first = candidate_lattice(candidates.token_ids, spine, off_spine)
        if copy is not None:
            first = self._with_copy(first, candidates, copy)
        options = [grow_tree(root, first, self.policy.largest(context))]
        if not options[0].is_chain:
            tokens, scores = best_chain(first)
            options.append(DraftTree.chain(np.array([root, *tokens]), np.array(scores)))
        tree, choice = max((self._cut(tree, context) for tree in options), key=lambda cut: cut[1].value)
        return Proposal("draft", tree, choice, candidates, copy)

    def _cut(self, tree: DraftTree, context: int) -> tuple[DraftTree, Choice]:
        """The part of the tree that is worth its rows."""
        choice = self.policy.choose(tree.expected_accepted(), context, tree.chain_nodes)
        return tree.prefix(choice.nodes), choice

    def learn(self, proposal: Proposal, outcome: Outcome) -> None:
        """Take note of how a proposed round went."""
        accepted = len(outcome.chosen) - 1
        if proposal.candidates is not None:
            self._learn_draft(proposal.candidates, outcome.chosen)
            block_size = len(proposal.candidates.token_ids) + 1
            reached = proposal.tree.expected_by_depth(block_size)
            self.policy.saw_draft(accepted, reached, block_size, outcome.seconds, outcome.verify_seconds)
            self.profile.cost.saw_draft(block_size, outcome.draft_seconds)
        else:
            self.policy.saw_copy()
        if proposal.copy is not None:
            self._learn_copy(proposal.copy, proposal.candidates, outcome.chosen)
        tree, cost = proposal.tree, self.profile.cost
        cost.saw_verification(len(tree), outcome.context, outcome.verify_seconds, tree.is_chain)
        cost.saw_rest(outcome.seconds - outcome.verify_seconds - outcome.draft_seconds)
        self.profile.rounds_unsaved += 1

    def _with_copy(self, first: NextTokens, candidates: Candidates, copy: Copy) -> NextTokens:
        scores = [math.log(chance) for chance in self._chances(copy, candidates)]
        return add_chain(first, copy.token_ids[: len(scores)], scores, off_spine_by_depth(first))

    def _chances(self, copy: Copy, candidates: Candidates | None) -> list[float]:
        """Probability of each copied token given the ones before it, as far as the path is worth it."""
        chances: list[float] = []
        path, best = 1.0, _best_along(copy, candidates)
        for depth in range(1, len(copy.token_ids) + 1):
            chance = self.profile.lookups.probability(copy.match, depth, _relation(copy, best, depth))
            path *= chance
            if path < FAINTEST:
                break
            chances.append(chance)
        return chances

    def _learn_draft(self, candidates: Candidates, chosen: Sequence[int]) -> None:
        """Which candidate was right at each accepted node whose children were drafted."""
        rows = candidates.along(chosen)
        count = len(rows.token_ids)
        agrees = rows.token_ids == np.array(chosen[:count])[:, None]
        ranks = np.where(agrees.any(axis=1), agrees.argmax(axis=1), agrees.shape[1])
        left = np.cumsum(ranks > 0) > 0  # the spine, by this choice or an earlier one
        off_spine = np.concatenate([[False], left[:-1]])
        chances = np.exp([corrected[:, 0] for corrected in self.calibration.apply(rows.log_probs)])
        self.policy.trust.update(float(np.where(off_spine, chances[1], chances[0]).sum()), float((ranks == 0).sum()))
        self.calibration.update(rows.log_probs, range(count), off_spine.tolist(), ranks.tolist())

    def _learn_copy(self, copy: Copy, candidates: Candidates | None, chosen: Sequence[int]) -> None:
        outcomes = []
        best = _best_along(copy, candidates)
        for depth, (copied, right) in enumerate(zip(copy.token_ids, chosen, strict=False), 1):
            outcomes.append(
                (self.profile.lookups.cell(copy.match, depth, _relation(copy, best, depth)), copied == right)
            )
            if copied != right:
                break
        self.profile.lookups.update(outcomes)


def _best_along(copy: Copy, candidates: Candidates | None) -> list[int]:
    """The drafter's best token at each depth of the copied path, as far as it has an opinion."""
    return [] if candidates is None else candidates.along(copy.token_ids).token_ids[:, 0].tolist()


def _relation(copy: Copy, best: Sequence[int], depth: int) -> int:
    """See LookupCalibration.cell."""
    return 2 if depth > len(best) else int(best[depth - 1] != copy.token_ids[depth - 1])
