"""One round: draft, verify, accept, commit; what it emits, and where its time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import mlx.core as mx

from mlx_ddtree.decoding.parity import remake_cache
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import Proposed, Verification, verify
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.target.marks import Mark
from mlx_ddtree.tree import DraftTree, accept

STAGES = ("prefill", "draft", "tree", "verify", "commit")

Propose = Callable[[int], Proposed]
"""From the root's token to what is verified behind it."""
Keep = Callable[[list[int]], int]
"""From the tokens that a round would emit to how many of them belong to the text."""
_NO_DRAFT = DraftTree.root(-1)


class Clock:
    """Seconds by stage.

    It adds no waits of its own: MLX runs lazily, so the copies that a commit asks for run with
    the next draft and are counted there.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += perf_counter() - start


@dataclass(frozen=True)
class Round:
    """What one round emitted and what it took.

    token_ids: the emitted tokens, the text's next ones.
    logits: (len(token_ids), V) that they were chosen from.
    tree: what was verified.
    path: the accepted nodes, root first; chosen: what the target said after each of them.
    alone: whether a near tie made a row of its own decide the token (RoundPlan.parity).
    kind: 'draft', 'lookup', 'forced', 'plain' or 'tie' (alone).
    expected: accepted nodes that were predicted, where they were.
    said: what the target says after every node of the tree; empty where the round did not ask it of a tree.
    """

    token_ids: list[int]
    logits: mx.array
    tree: DraftTree
    path: list[int]
    chosen: list[int]
    alone: bool = False
    kind: str = "draft"
    expected: float | None = None
    said: Sequence[int] = ()

    @classmethod
    def of_one_token(cls, token: int, logits: mx.array) -> Round:
        """A step of plain decoding."""
        return cls([token], logits, _NO_DRAFT, [0], [token], kind="plain")

    @property
    def accepted(self) -> int:
        """Draft nodes that agreed with the target; the acceptance length is one more."""
        return len(self.path) - 1

    @property
    def nodes(self) -> int:
        """Size of the draft tree without the root."""
        return len(self.tree) - 1


def decode_round(state: DecodeState, plan: RoundPlan, propose: Propose, keep: Keep, clock: Clock) -> Round:
    """Emit the next tokens of the sequence: one, or as many as the target agrees with.

    keep: an end token, a stop string or the length limit may stand inside an accepted path.
    """
    assert state.root is not None
    with state.all_or_nothing() as before:
        # 1. Draft.  A near tie is decided by a row of its own: the root alone.
        alone = state.near_tie
        proposed = DraftTree.root(state.root) if alone else propose(state.root)
        with clock("verify"):
            # 2. Verify: the target chooses a token after every node.
            verification = verify(state, proposed, plan)
            tree = verification.tree
            proven = state.standing(before) if state.pair.target.kernels != NO_KERNELS else None
            # 3. Accept: follow the target's choices from the root, as far as rounding cannot have made them.
            agreed = accept(tree, verification.chosen)[: verification.pending.room][: state.room]
            path = verification.before_near_tie(agreed)
            if len(tree) > 1 and not path:
                alone = True
                tree, verification = _verify_root(state, plan, before)
            if len(tree) == 1:
                verification = _decided_as_plainly(state, tree, plan, verification)
                agreed = [0]
                path = agreed
        with clock("commit"):
            # 4. Commit: the path's rows stay in the caches, and its last choice is the new root.
            state.near_tie = len(path) < len(agreed)
            chosen = [verification.chosen[node] for node in path]
            state.proven = None  # once the text has the tokens, no failure can have them decided again
            token_ids = chosen[: keep(chosen)]
            commit(state, path, verification, token_ids)
            state.proven = proven
    logits = verification.logits[mx.array(path[: len(token_ids)])]
    return Round(token_ids, logits, tree, path, chosen, alone, _kind(tree, alone), said=verification.chosen)


def commit(state: DecodeState, path: Sequence[int], verification: Verification, token_ids: Sequence[int]) -> None:
    """Make the accepted path a part of the context; the rest of the tree is gone.

    path: node indices, root first, of the accepted path.
    token_ids: the emitted tokens.  Normally the accepted nodes' tokens and the new bonus token.
        Fewer when the text ends inside the path: then the path is cut after the last emitted
        token, which is in the cache, and no root is left.
    """
    # 1. The rows of the path stay in the target's caches.
    kept = path[: len(token_ids) + 1]
    as_plainly = len(verification.chosen) == 1 and state.exact == state.length
    verification.pending.commit(kept)
    state.length += len(kept)
    if as_plainly:
        state.mark_exact()
    # 2. Their features wait for the drafter.
    if state.caches.drafter and verification.features is not None:
        state.append_features(mx.take(verification.features, mx.array(list(kept)), axis=1))
    # 3. The last choice is the new root.
    state.root = token_ids[-1] if len(token_ids) == len(path) else None
    state.token_ids.extend(token_ids)


def _verify_root(state: DecodeState, plan: RoundPlan, before: Mark) -> tuple[DraftTree, Verification]:
    """The root alone in place of a tree whose rows await the commit: the near tie stands right behind it."""
    assert state.root is not None
    state.pair.target.rewind(state.caches.target, before)
    tree = DraftTree.root(state.root)
    return tree, verify(state, tree, plan)


def _decided_as_plainly(
    state: DecodeState, tree: DraftTree, plan: RoundPlan, verification: Verification
) -> Verification:
    """A lone row's choice; where the cache's own rounding could change it, over a cache made as plain decoding does."""
    if verification.is_close is None or not verification.is_close(0):
        return verification
    remake_cache(state)
    return verify(state, tree, plan)


def _kind(tree: DraftTree, alone: bool) -> str:
    if alone:
        return "tie"
    return "draft" if len(tree) > 1 else "plain"
