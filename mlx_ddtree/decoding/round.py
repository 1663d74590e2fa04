"""One round: draft, tree, verify, accept, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
from mlx_lm.sample_utils import LogitsProcessor

from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.commit import commit
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.sampling import MlxLmSampler, Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.tree import DraftTree, accept, build_tree


@dataclass(frozen=True)
class RoundPlan:
    """How to draft and how to choose; the same for every round of a call.

    method: 'ar' drafts nothing, 'dflash' a linear block, 'ddtree' a tree of `tree_budget` nodes.
    block_size: tokens of a block, root included.
    """

    method: str
    block_size: int
    tree_budget: int
    sampler: Sampler | MlxLmSampler
    processors: Sequence[LogitsProcessor] = ()

    def without_draft(self) -> RoundPlan:
        return replace(self, method="ar", tree_budget=0)


@dataclass(frozen=True)
class Round:
    """What one round emitted and what it took.

    token_ids: the emitted tokens, the text's next ones.
    logits: (len(token_ids), V) that they were chosen from.
    accepted: draft nodes that agreed with the target; the acceptance length is one more.
    nodes, depth: size of the draft tree without the root, and its depth.
    """

    token_ids: list[int]
    logits: mx.array
    accepted: int
    nodes: int
    depth: int


def decode_round(state: DecodeState, plan: RoundPlan, keep: Callable[[list[int]], int], clock: Clock) -> Round:
    """Emit the next tokens of the sequence: one, or as many as the target agrees with.

    keep: told the tokens the round would emit, says how many of them belong to the text (an end
        token, a stop string or the length limit may stand inside an accepted path).
    """
    assert state.root is not None
    with state.all_or_nothing():
        tree = make_draft_tree(state, plan, clock)
        with clock("verify"):
            verification = verify(state, tree, plan.tree_budget, plan.sampler, plan.processors)
        with clock("commit"):
            path = accept(tree, verification.chosen)
            tokens = [*tree.token_ids[path[1:]].tolist(), verification.chosen[path[-1]]]
            tokens = tokens[: keep(tokens)]
            commit(state, path, verification, tokens)
    logits = verification.logits[mx.array(path[: len(tokens)])]
    return Round(tokens, logits, len(path) - 1, len(tree) - 1, int(tree.depths.max()))


def rounds(state: DecodeState, plan: RoundPlan, keep: Callable[[list[int]], int], clock: Clock) -> Iterator[Round]:
    """Rounds without end; the caller stops when the text does."""
    while True:
        yield decode_round(state, plan, keep, clock)


def make_draft_tree(state: DecodeState, plan: RoundPlan, clock: Clock) -> DraftTree:
    """Draft as the method says; plain decoding is a tree of the root alone."""
    root = state.root
    assert root is not None
    if plan.method == "ar" or plan.tree_budget == 0:
        return DraftTree.root(root)
    with clock("draft"):
        token_ids, log_probs = draft(state, plan.block_size, 1 if plan.method == "dflash" else plan.tree_budget)
    with clock("tree"):
        return build_tree(root, token_ids, log_probs, plan.tree_budget)
