"""What the next round verifies: a tree of one size, or nothing; decoding/adaptive.py chooses a size every round."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from mlx_ddtree.budget.calibration import RecallCalibration
from mlx_ddtree.budget.copies import Copies
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.budget.recall import Recalled
from mlx_ddtree.decoding.draft import StartedDraft, UnreadChain, can_stay_unread, finish_draft, start_draft
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.round import Clock, Round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import Text
from mlx_ddtree.decoding.verify import AheadBuilder, Proposed
from mlx_ddtree.grammar.lattice import follow_grammar
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.lattice import END, NextTokens, add_lattice, best_chain, candidate_lattice, off_spine_by_depth

CHAIN_CANDIDATES = 16
"""Candidates of a chain's position where a grammar may forbid the best ones."""


class Proposer(Protocol):
    """One sequence's source of draft trees, in the order in which the loop calls it."""

    def prepare(self) -> Iterator[Round] | None:
        """Send the next draft off; or the rounds of plain decoding that come before it, of which the first is sent off.

        Nothing of either where the text has ended.
        """

    def propose(self, root: int) -> Proposed:
        """The tree to verify behind this root, once the draft is there; or a chain, which need not wait for it."""

    def learn(self, done: Round) -> Round:
        """Take note of how the proposed round went; the round with what was expected of it."""


class NoProposer:
    """Plain decoding, without end."""

    def __init__(self, state: DecodeState, plan: RoundPlan, text: Text, clock: Clock) -> None:
        self.state = state
        self.plan = plan
        self.text = text
        self.clock = clock

    def prepare(self) -> Iterator[Round] | None:
        if not self.may_begin():
            return None
        return plain_rounds(self.state, self.plan, self.text, self.clock, lambda done: True)

    def may_begin(self) -> bool:
        """Whether a round can begin before the last one is handed out: the text goes on, and not from a near tie, where
        the root is verified alone."""
        return not self.text.ended and not self.state.near_tie

    def propose(self, root: int) -> Proposed:
        return DraftTree.root(root)

    def learn(self, done: Round) -> Round:
        return done


class CopyingProposer(NoProposer):
    """Without a drafter: trees of `plan.tree_budget` nodes, or chains, of what stood behind the same tokens before."""

    def __init__(self, state: DecodeState, plan: RoundPlan, text: Text, clock: Clock) -> None:
        super().__init__(state, plan, text, clock)
        assert plan.tree_budget != "auto"
        self.budget = plan.tree_budget
        self.copies = _copies(state, plan)
        self.recalled: Recalled | None = None

    def prepare(self) -> Iterator[Round] | None:
        return None

    def propose(self, root: int) -> Proposed:
        with self.clock("tree"):
            self.recalled = self.copies.after(self.state.token_ids, beside_drafter=False)
            if self.recalled is None and self.state.walk is None:
                return DraftTree.root(root)
            first = END if self.recalled is None else self.copies.lattice(self.recalled)
            first = within_grammar(self.state, first)
            if self.plan.method == "ddtree":
                return grow_tree(root, first, self.budget)
            return _chain(root, first, self.budget)

    def learn(self, done: Round) -> Round:
        if done.alone:
            return done
        if self.recalled is None:
            return replace(done, kind="forced") if done.nodes else done
        self.copies.learn(self.recalled, done.chosen)
        return replace(done, kind="lookup")


class FixedProposer(NoProposer):
    """Trees of `plan.tree_budget` nodes, or chains of `plan.block_size` tokens.

    Where a memory was asked for, what it knows behind the text's last tokens enters a tree beside the drafter's
    candidates, as it does with tree_budget='auto'.
    """

    def __init__(self, state: DecodeState, plan: RoundPlan, text: Text, clock: Clock) -> None:
        super().__init__(state, plan, text, clock)
        assert plan.block_size is not None
        assert plan.tree_budget != "auto"
        self.block_size = plan.block_size
        self.budget = plan.tree_budget
        self.linear = plan.method == "dflash"
        self.top_k = 1 if self.linear else plan.tree_budget
        if self.linear and state.walk is not None:
            self.top_k = CHAIN_CANDIDATES
        self.ahead = AheadBuilder(state)
        self.started: StartedDraft | None = None
        self.copies = _copies(state, plan) if plan.memory and plan.method == "ddtree" else None
        self.recalled: Recalled | None = None

    def prepare(self) -> Iterator[Round] | None:
        self.started = None
        if self.may_begin() and not self._is_certain():
            with self.state.all_or_nothing(), self.clock("draft"):
                self.started = start_draft(self.state, self.block_size, self.top_k)
        return None

    def _is_certain(self) -> bool:
        """Whether a grammar leaves no choice as far as the drafter sees."""
        if self.state.walk is None:
            return False
        self.state.walk.stand(self.state.token_ids)
        reach = min(self.block_size - 1, self.budget)
        forced = self.state.walk.forced(reach)
        return len(forced) == reach or self.state.walk.ends(forced)

    def propose(self, root: int) -> Proposed:
        if self.started is None:
            with self.clock("tree"):
                return _chain(root, within_grammar(self.state, END), self.budget)
        if self.linear and self.state.walk is None and can_stay_unread(self.state.pair, self.plan):
            return UnreadChain(root, self.started)
        with self.clock("draft"):
            # Build the verification while the device drafts: trees of one size have rows of one number.
            built = self.ahead.build(self.budget + 1, chain=self.linear)
            token_ids, log_probs = finish_draft(self.started)
        with self.clock("tree"):
            first = candidate_lattice(token_ids, log_probs)
            if self.copies is not None:
                first = self._with_copies(self.copies, first)
            first = within_grammar(self.state, first)
            tree = _chain(root, first, self.budget) if self.linear else grow_tree(root, first, self.budget)
        return tree if built is None else built.for_tree(tree)

    def _with_copies(self, copies: Copies, first: NextTokens) -> NextTokens:
        """The drafter's candidates and what is remembered behind the text, as one lattice."""
        self.recalled = copies.after(self.state.token_ids, beside_drafter=True)
        if self.recalled is None:
            return first
        others = off_spine_by_depth(first)
        return add_lattice(first, copies.lattice(self.recalled, first, others), others)

    def learn(self, done: Round) -> Round:
        if done.alone:
            return done
        if self.started is None:
            return replace(done, kind="forced")
        if self.copies is not None and self.recalled is not None:
            self.copies.learn(self.recalled, done.chosen)
        return done


def within_grammar(state: DecodeState, first: NextTokens) -> NextTokens:
    """What of a draft's lattice the text's grammar allows, with what it forces put in; all of it without a grammar."""
    if state.walk is None:
        return first
    state.walk.stand(state.token_ids)
    return follow_grammar(state.walk, first)


def _chain(root: int, first: NextTokens, nodes: int) -> DraftTree:
    """The best path of a lattice, `nodes` tokens at most."""
    tokens, scores = best_chain(first)
    return DraftTree.chain(np.array([root, *tokens]), np.array(scores)).prefix(min(nodes, len(tokens)))


def profile_for(state: DecodeState) -> Profile | None:
    """What is known of the pair, for texts like this one."""
    profile = state.pair.profile
    return profile if profile is None or state.walk is None else profile.for_grammars()


def _copies(state: DecodeState, plan: RoundPlan) -> Copies:
    """What this text's rounds copy, calibrated by the pair's counts where it has some."""
    profile = profile_for(state)
    return Copies(RecallCalibration() if profile is None else profile.lookups, plan.memory)
