"""One round: draft, tree, verify, accept, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.commit import commit
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.parity import remake_cache
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import Verification, verify
from mlx_ddtree.target.views import Mark
from mlx_ddtree.tree import DraftTree, accept, build_tree


@dataclass(frozen=True)
class Round:
    """What one round emitted and what it took.

    token_ids: the emitted tokens, the text's next ones.
    logits: (len(token_ids), V) that they were chosen from.
    tree: what was verified.
    path: the accepted nodes, root first; chosen: what the target said after each of them.
    alone: whether a near tie made a row of its own decide the token (RoundPlan.parity).
    kind: 'draft', 'lookup', 'plain' or 'tie' (alone).
    expected: accepted nodes that were predicted, where they were.
    """

    token_ids: list[int]
    logits: mx.array
    tree: DraftTree
    path: list[int]
    chosen: list[int]
    alone: bool = False
    kind: str = "draft"
    expected: float | None = None

    @classmethod
    def of_one_token(cls, token: int, logits: mx.array) -> Round:
        """A step of plain decoding."""
        return cls([token], logits, DraftTree.root(-1), [0], [token], kind="plain")

    @property
    def accepted(self) -> int:
        """Draft nodes that agreed with the target; the acceptance length is one more."""
        return len(self.path) - 1

    @property
    def nodes(self) -> int:
        """Size of the draft tree without the root."""
        return len(self.tree) - 1


Propose = Callable[[int], DraftTree]
"""From the root's token to the draft tree."""


def decode_round(
    state: DecodeState, plan: RoundPlan, propose: Propose, keep: Callable[[list[int]], int], clock: Clock
) -> Round:
    """Emit the next tokens of the sequence: one, or as many as the target agrees with.

    keep: told the tokens the round would emit, says how many of them belong to the text (an end
        token, a stop string or the length limit may stand inside an accepted path).
    """
    assert state.root is not None
    with state.all_or_nothing() as before:
        alone = state.near_tie
        tree = DraftTree.root(state.root) if alone else propose(state.root)
        with clock("verify"):
            verification = verify(state, tree, plan)
            path = accept(tree, verification.chosen)[: verification.pending.room]
            sure = verification.sure(path, plan.parity.rows)
            if not sure:  # a near tie right after the root
                alone, tree, path, sure = True, DraftTree.root(state.root), [0], [0]
                verification = verify_again(state, before, tree, plan)
            if plan.parity.cache and len(tree) == 1 and verification.closer(plan.parity.cache):
                remake_cache(state)
                verification = verify(state, tree, plan)
        with clock("commit"):
            state.near_tie = len(sure) < len(path)
            chosen = [verification.chosen[node] for node in sure]
            tokens = chosen[: keep(chosen)]
            commit(state, sure, verification, tokens)
    logits = verification.logits[mx.array(sure[: len(tokens)])]
    kind = "tie" if alone else "draft" if len(tree) > 1 else "plain"
    return Round(tokens, logits, tree, sure, chosen, alone, kind)


def verify_again(state: DecodeState, before: Mark, tree: DraftTree, plan: RoundPlan) -> Verification:
    """Another tree in place of the one whose rows await the commit."""
    state.pair.target.rewind(state.target_cache, before)
    return verify(state, tree, plan)


def rounds(state: DecodeState, plan: RoundPlan, keep: Callable[[list[int]], int], clock: Clock) -> Iterator[Round]:
    """Rounds with trees of one size, without end; the caller stops when the text does."""
    while True:
        yield decode_round(state, plan, lambda root: fixed_tree(state, plan, root, clock), keep, clock)


def fixed_tree(state: DecodeState, plan: RoundPlan, root: int, clock: Clock) -> DraftTree:
    """Draft as the method says; plain decoding is a tree of the root alone."""
    assert plan.tree_budget != "auto"
    if plan.method == "ar" or plan.tree_budget == 0:
        return DraftTree.root(root)
    assert plan.block_size is not None
    with clock("draft"):
        token_ids, log_probs = draft(state, plan.block_size, 1 if plan.method == "dflash" else plan.tree_budget)
    with clock("tree"):
        return build_tree(root, token_ids, log_probs, plan.tree_budget)
