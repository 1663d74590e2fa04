"""Verify: one forward of the target over the whole tree.

Its graph is made as soon as the tree is known; or before, on blanks, while the device drafts (`BuiltAhead`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.cost import ROWS
from mlx_ddtree.decoding.draft import UnreadChain
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.sampling import Choices, choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.grammar.walk import GrammarWalk
from mlx_ddtree.kernels.metal import waits
from mlx_ddtree.kernels.token_mask import masked, masked_by_numpy
from mlx_ddtree.kernels.topk import lead_over_others, suits_numpy
from mlx_ddtree.target.blank_rows import BlankRows, can_fill
from mlx_ddtree.target.marks import mark_with_arrays, rewind
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import Pending, waits_unevaluated
from mlx_ddtree.tree import DraftTree

IsClose = Callable[[int], bool]
"""From a node to whether rounding could have made the choice after it another one."""
MOST_SPOILT = 3
"""Forwards in a row that were made for nothing before no more of a text are made ahead."""
ROW_BUCKETS = (*ROWS, 192, 256, 384, 512, 768, 1025)


@dataclass(frozen=True)
class Verification:
    """The target's answer to a tree of N nodes, root included; its rows await the commit.

    tree: what was verified.
    chosen: N token ids, what the target says after each node.
    logits: (N, V).
    features: (1, rows, taps * D), or None without taps.
    pending: the rows in the target's caches.
    is_close: of a node, whether rounding could have made the choice after it another one; None where nobody asked.
        Only the nodes of a path are looked at, so it is found out when it is asked for.
    """

    tree: DraftTree
    chosen: list[int]
    logits: mx.array
    features: mx.array | None
    pending: Pending
    is_close: IsClose | None = None

    def before_near_tie(self, path: list[int]) -> list[int]:
        """The nodes of `path` before the first whose choice rounding could change: there a row alone must decide."""
        if self.is_close is None:
            return path
        for i, node in enumerate(path):
            if self.is_close(node):
                return path[:i]
        return path


class TreeForward(NamedTuple):
    """One forward over context and tree; lazy.

    token_ids: (rows,) the tree's, then padding.
    hidden: (1, rows, D) normalised.
    features: (1, rows, taps * D), or None without taps.
    pending: the rows in the target's caches.
    """

    token_ids: mx.array
    hidden: mx.array
    features: mx.array | None
    pending: Pending


class BuiltAhead:
    """A forward over `count` rows, root included, that was built before the tree is known.

    The caches have it in them from the start: `fill` a tree in, or `give_up`.
    chain: whether the tree will have no branches.
    spoilt: whether a kernel's first launch was waited for, so that it has read blanks; then it is given up already.
    """

    def __init__(self, state: DecodeState, count: int, chain: bool = False) -> None:
        self.rows = BlankRows(state.length, count, state.coverage.gap, chain)
        self._cache = state.caches.target
        self._before = mark_with_arrays(self._cache)
        waited = waits()
        self._forward = _forward(state, self.rows.token_ids, self.rows)
        self.spoilt = waits() != waited
        if self.spoilt:
            self.give_up()

    def for_tree(self, tree: DraftTree) -> Proposed:
        """This tree with the forward, which is given up where the tree does not fit or is the root alone: a root is
        verified as plain decoding would."""
        if 1 < len(tree) <= self.rows.count:
            return BuiltTree(tree, self)
        self.give_up()
        return tree

    def fill(self, tree: DraftTree) -> TreeForward:
        """The forward over a tree of 2 to `count` nodes, root included."""
        self.rows.fill(tree)
        self._before = []
        return self._forward

    def give_up(self) -> None:
        """Take the forward out of the caches, which stand as before."""
        rewind(self._cache, self._before)


class BuiltTree(NamedTuple):
    """A tree, and the forward that was built for so many nodes or more."""

    tree: DraftTree
    built: BuiltAhead


Proposed = DraftTree | BuiltTree | UnreadChain
"""What a round verifies: a draft tree, or a chain that only the device knows."""


class AheadBuilder:
    """Makes one text's verifications before their trees are known, where this device and these caches allow it."""

    def __init__(self, state: DecodeState) -> None:
        self.state = state
        self.builds = can_build_ahead(state)
        self._spoilt_in_a_row = 0

    def build(self, count: int, chain: bool) -> BuiltAhead | None:
        """A forward over `count` rows; None where it is to be made once the tree is known.

        Kernels that are launched for the first time spoil it.  Texts later find them launched.
        """
        if not self.builds:
            return None
        built = BuiltAhead(self.state, count, chain)
        if not built.spoilt:
            self._spoilt_in_a_row = 0
            return built
        self._spoilt_in_a_row += 1
        self.builds = self._spoilt_in_a_row < MOST_SPOILT
        return None


def can_build_ahead(state: DecodeState) -> bool:
    """Whether a verification's graph can be made before its tree is known, on this device and over these caches."""
    return state.pair.target.builds_ahead and waits_unevaluated(state.caches.target) and can_fill()


def verify(state: DecodeState, proposed: Proposed, plan: RoundPlan) -> Verification:
    """Run the target over the tree and let it choose a token after every node."""
    # 1. One forward over context and tree.
    tree, forward = _tree_and_forward(state, proposed, plan)
    # 2. The target's choice after every node: the round's second and last wait, because the walk needs it.  Only the
    #    tree's own rows go through the LM head.
    said = _choose(state, forward.hidden[0, : len(tree)], tree, forward.token_ids, plan)
    if isinstance(proposed, UnreadChain):
        tree = proposed.read()
    return Verification(tree, said.chosen, said.logits, forward.features, forward.pending, said.is_close)


def _tree_and_forward(state: DecodeState, proposed: Proposed, plan: RoundPlan) -> tuple[DraftTree, TreeForward]:
    """What is verified, as far as the host knows it, and the target's forward over it."""
    if isinstance(proposed, BuiltTree):
        return proposed.tree, proposed.built.fill(proposed.tree)
    tree = proposed.shape if isinstance(proposed, UnreadChain) else proposed
    rows = TreeRows(tree, state.length, row_count(tree, plan.tree_budget), state.coverage.gap)  # so shapes recur
    if isinstance(proposed, UnreadChain):  # its tokens come from the drafter by themselves
        return tree, _forward(state, proposed.token_ids, rows)
    return tree, _forward(state, mx.array(rows.padded_token_ids()), rows)


def _forward(state: DecodeState, token_ids: mx.array, rows: TreeRows) -> TreeForward:
    return TreeForward(token_ids, *state.pair.target.forward_rows(token_ids[None], rows, state.caches.target))


def row_count(tree: DraftTree, budget: int | Literal["auto"]) -> int:
    """How many rows verify a tree, root included.

    Chains need no padding: their attention takes the plain causal path.  A full tree has `budget` nodes and is never
    padded; smaller ones go up to the next bucket.
    """
    nodes = len(tree)
    if tree.is_chain:
        return nodes
    padded = next(bucket for bucket in ROW_BUCKETS if bucket >= nodes)
    return padded if budget == "auto" else min(padded, max(budget + 1, nodes))


class _Said(NamedTuple):
    """What the target says after each of N nodes, once the host knows it; see Verification."""

    chosen: list[int]
    logits: mx.array
    is_close: IsClose | None


def _choose(state: DecodeState, hidden: mx.array, tree: DraftTree, token_ids: mx.array, plan: RoundPlan) -> _Said:
    """The choices after every node, from the rows' hidden states (N, D); waits for them and for `token_ids`."""
    target = state.pair.target
    bound = plan.parity.cache if len(tree) == 1 else plan.parity.rows
    choices = _best_without_logits(state, hidden, plan, bound)
    if choices is None:
        logits = target.unembed_tree(hidden)
        allowed = None if state.walk is None else _allowed(state, state.walk, tree, logits)
        if plan.takes_the_best and suits_numpy(logits):
            mx.eval(logits, token_ids)
            return _best_by_numpy(logits, bound, allowed)
        start = state.position + 1
        choices = choose_tokens(logits, tree, start, state.token_ids, plan.sampler, plan.processors, bound, allowed)
        mx.eval(choices, token_ids)
    chosen: list[int] = choices.token_ids.tolist()  # type: ignore[assignment]
    if choices.close is None:
        return _Said(chosen, choices.logits, None)
    flags: list[bool] = choices.close.tolist()  # type: ignore[assignment]
    return _Said(chosen, choices.logits, flags.__getitem__)


def _allowed(state: DecodeState, walk: GrammarWalk, tree: DraftTree, logits: mx.array) -> NDArray[np.uint32]:
    """(N, W) what the text's grammar allows after each node, found while the device computes the logits."""
    mx.async_eval(logits)
    walk.stand(state.token_ids)
    return walk.masks(tree)


def _best_by_numpy(logits: mx.array, bound: float, allowed: NDArray[np.uint32] | None) -> _Said:
    """Greedy choices from fp32 logits (N, V) that are there, on the processor, where MLX takes ten times as long."""
    read = np.asarray(logits)
    if allowed is not None:
        read = masked_by_numpy(read, allowed)
        logits = masked(logits, allowed)
    chosen = read.argmax(axis=1).tolist()
    if bound == 0:
        return _Said(chosen, logits, None)
    return _Said(chosen, logits, lambda node: lead_over_others(read[node], chosen[node]) < bound)


def _best_without_logits(state: DecodeState, hidden: mx.array, plan: RoundPlan, bound: float) -> Choices | None:
    """Greedy choices by the kernel that writes no logits, where there is one; logits wait until somebody looks."""
    target = state.pair.target
    if not plan.takes_the_best or state.walk is not None:
        return None
    best = target.best_of_tree(hidden, 2)
    if best is None:
        return None
    chosen = best.token_ids[:, 0]
    close = None if bound == 0 else best.logits[:, 0] - best.logits[:, 1] < bound
    mx.eval(chosen, close)
    return Choices(chosen, target.unembed_tree(hidden), close)
