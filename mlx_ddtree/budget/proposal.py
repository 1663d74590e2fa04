"""What a round is about to verify, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlx_ddtree.budget.graphs import Graph
from mlx_ddtree.budget.policy import Choice
from mlx_ddtree.budget.recall import Recalled
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import Candidates


class Outcome(NamedTuple):
    """How a round went.

    chosen: what the target said after each accepted node, root first.
    context: tokens in the cache before the round.
    seconds, verify_seconds, draft_seconds: of the whole round, of its verification and of its draft.
    """

    chosen: Sequence[int]
    context: int
    seconds: float
    verify_seconds: float
    draft_seconds: float

    def at_usual_pace(self, pace: float) -> Outcome:
        """This round, timed as on a machine that is as fast as usual; pace: what things take now over that."""
        return self._replace(
            seconds=self.seconds / pace,
            verify_seconds=self.verify_seconds / pace,
            draft_seconds=self.draft_seconds / pace,
        )


@dataclass
class Proposal:
    """What a round is about to verify, and why.

    kind: 'draft', 'lookup' or 'forced'.  choice: what the tree's size promises.  candidates: of the drafter, if it was
        asked.
    copy: what entered the tree beside them, or alone, if something did.
    unread: whether the tree is a block's best path whose tokens nobody has read yet.
    graph: of its verification, where that was made before the draft was read.
    reached: (block_size,) probability that at least d = 0.. tokens of the draft's best path are accepted, where the
        path could have been verified unread instead.
    """

    kind: str
    tree: DraftTree
    choice: Choice
    candidates: Candidates | None = None
    copy: Recalled | None = None
    unread: bool = False
    graph: Graph | None = None
    reached: list[float] | None = None
