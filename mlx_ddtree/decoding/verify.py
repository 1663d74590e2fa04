"""Verify: one forward of the target over the whole tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.cost import ROWS
from mlx_ddtree.decoding.sampling import choose_tokens, is_greedy
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.topk import top_margins
from mlx_ddtree.target.views import Pending
from mlx_ddtree.tree import DraftTree

if TYPE_CHECKING:
    from mlx_ddtree.decoding.plan import RoundPlan

ROW_BUCKETS = (*ROWS, 192, 256, 384, 512, 768, 1025)


@dataclass(frozen=True)
class Verification:
    """The target's answer to a tree of N nodes, root included; its rows await the commit.

    chosen: N token ids, what the target says after each node.
    logits: (N, V).
    features: (1, rows, taps * D), or None without taps.
    pending: the rows in the target's caches.
    margins: (N,) between the two best logits of each node; None where nobody asked.
    """

    chosen: list[int]
    logits: mx.array
    features: mx.array | None
    pending: Pending
    margins: NDArray[np.float32] | None = None

    def sure(self, path: list[int], bound: float) -> list[int]:
        """The nodes of `path` before the first whose two best logits are closer than `bound`.

        There a row of its own might choose the other one: forwards of several rows round differently.
        """
        if self.margins is None or len(self.margins) == 1:
            return path
        close = self.margins[path] < bound
        return path[: int(close.argmax())] if close.any() else path

    def closer(self, bound: float) -> bool:
        """Whether a single row's two best logits are closer than `bound`."""
        return self.margins is not None and bool(self.margins[0] < bound)


def padded_rows(rows: int, budget: int | Literal["auto"]) -> int:
    """How many rows to verify a tree of `rows` with, root included, so that shapes recur.

    A full tree has `budget` nodes and is never padded; smaller ones go up to the next bucket.
    """
    padded = next(b for b in ROW_BUCKETS if b >= rows)
    return padded if budget == "auto" else min(padded, max(budget + 1, rows))


def verify(state: DecodeState, tree: DraftTree, plan: RoundPlan) -> Verification:
    """Run the target over the tree and let it choose a token after every node.

    Only the tree's own rows go through the LM head, padding does not.  Chains need no padding: their
    attention takes the plain causal path.
    """
    target, nodes = state.pair.target, len(tree)
    token_ids = np.full(nodes if tree.is_chain else padded_rows(nodes, plan.tree_budget), tree.token_ids[0])
    token_ids[:nodes] = tree.token_ids
    place = (state.length, state.target_cache, state.held.gap)
    hidden, features, pending = target.forward_tree(mx.array(token_ids)[None], tree, *place)
    logits = target.unembed_tree(hidden[0, :nodes])
    greedy = is_greedy(plan.sampler)
    guarded = (plan.parity.rows if nodes > 1 else plan.parity.cache) > 0 and greedy
    best = target.best_of_tree(hidden[0, :nodes], 2) if greedy and not plan.processors else None
    if best is not None:
        chosen = best.token_ids[:, 0]
        margins = best.logits[:, 0] - best.logits[:, 1] if guarded else None
        mx.eval(chosen, margins)  # and no logits, until somebody looks at them
    else:
        chosen, logits = choose_tokens(logits, tree, state.position + 1, state.token_ids, plan.sampler, plan.processors)
        margins = top_margins(logits, chosen) if guarded else None
        mx.eval(chosen, logits, margins)  # the round's second and last wait: the walk needs the target's choices
    answers: list[int] = chosen.tolist()  # type: ignore[assignment]
    return Verification(answers, logits, features, pending, np.asarray(margins) if guarded else None)
