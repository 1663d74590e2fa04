"""Draft: one forward of the drafter gives the candidates of the next L positions.

Trees are built by the host, so it waits for the candidates.  A chain of the best ones needs no host: its tokens go from
the drafter to the target on the device (`UnreadChain`), and the host reads them with the target's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.drafter.paths import candidates_of, start_paths
from mlx_ddtree.kernels.pairwise import finish_pairwise, start_pairwise
from mlx_ddtree.kernels.topk import best_token_ids, finish_top_k
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tree.lattice import Candidates


class StartedDraft(NamedTuple):
    """A draft under way on the device: what finish_top_k needs, or, of `pairs` candidates, finish_pairwise."""

    result: mx.array
    top_k: int
    pairs: int = 0


def start_draft(state: DecodeState, block_size: int, top_k: int) -> StartedDraft:
    """Send the drafter off over [root, MASK, ...], without waiting for it."""
    target, drafter = state.pair.target, state.pair.drafter
    if drafter is None:
        raise ValueError("a draft needs a drafter")
    assert state.root is not None
    block = mx.array([drafter.block_ids(state.root, block_size)])
    embedded = drafter.embed(block, target.embed)
    rows = drafter(embedded, state.take_features(), state.caches.drafter, state.coverage.drafter_gap)[0]
    started = start_candidates(state.pair, block[0, 0], rows[drafter.config.logits_start :], top_k)
    mx.async_eval(started.result)
    return started


def start_candidates(pair: Pair, root: mx.array, hidden: mx.array, top_k: int) -> StartedDraft:
    """From what the drafter says of the positions after `root`, (L, D), to their candidates; lazy."""
    target, drafter = pair.target, pair.drafter
    assert drafter is not None
    logits = drafter.logits(hidden, target.head)
    if (head := drafter.path_head) is not None:
        paths = start_paths(head, logits, root, hidden, target.embed, drafter.vocabulary)
        return StartedDraft(paths, top_k, candidates_of(head, logits))
    if (selector := drafter.selector) is None:
        top_k = min(top_k, logits.shape[-1])
        return StartedDraft(target.kernels.start_top_k(logits, top_k), top_k)
    # It may lift a token from any place among its candidates: all of them are scored for any top_k.
    edges = partial(selector.edges, root, hidden)
    return StartedDraft(start_pairwise(logits, selector.top_k, edges), top_k, selector.top_k)


def finish_draft(started: StartedDraft) -> Candidates:
    """The `top_k` best tokens of each of the L = block_size - 1 positions after the root; waits for the device.

    A drafter that scores pairs gives all its candidates for any top_k but 1, which is its greedy path.
    Drafting is greedy at every temperature and under every filter: trees from the drafter's own marginals accept
    more than from tempered or filtered ones (docs/auto_budget.md).
    """
    if started.pairs == 0:
        return Candidates(*finish_top_k(started.result, started.top_k))
    candidates = Candidates(*finish_pairwise(started.result, started.pairs))
    return candidates.greedy() if started.top_k == 1 else candidates


@dataclass(frozen=True)
class UnreadChain:
    """A draft's best path, on its way to the target before the host has seen its tokens.

    root: the token before it.
    started: a draft of single candidates (top_k 1, no pairs).
    """

    root: int
    started: StartedDraft

    @cached_property
    def shape(self) -> DraftTree:
        """The chain with every token but the root's unknown, as 0."""
        length = self.started.result.shape[0]
        return DraftTree.chain(np.array([self.root] + [0] * length))

    @cached_property
    def token_ids(self) -> mx.array:
        """(N,) int32 on the device, root first; lazy."""
        return mx.concatenate([mx.array([self.root], mx.int32), best_token_ids(self.started.result)])

    def read(self) -> DraftTree:
        """The chain, once `token_ids` are there; how probable its tokens were is worked out when first asked for."""
        return _ScoredLater(np.asarray(self.token_ids), self.started)


class _ScoredLater(DraftTree):
    """A chain whose log-probabilities take a pass over the drafter's logits, which most rounds never need."""

    def __init__(self, token_ids: NDArray[np.int32], started: StartedDraft) -> None:
        chain = DraftTree.chain(token_ids)
        for name in ("token_ids", "parents", "depths"):
            object.__setattr__(self, name, getattr(chain, name))
        object.__setattr__(self, "_started", started)

    @cached_property
    def log_weights(self) -> NDArray[np.float32]:
        """(N,) float32, as a DraftTree's."""
        started: StartedDraft = self.__dict__["_started"]
        _, log_probs = finish_top_k(started.result, 1)
        return DraftTree.chain(self.token_ids, log_probs[:, 0]).log_weights


def draft(state: DecodeState, block_size: int, top_k: int) -> Candidates:
    """Start a draft and wait for it."""
    return finish_draft(start_draft(state, block_size, top_k))


def can_stay_unread(pair: Pair, plan: RoundPlan) -> bool:
    """Whether the host need not see a chain before the target does.

    Logits processors read the tokens there, and it compares the candidates of drafters that score pairs.  Where a
    grammar is followed (DecodeState.walk) it reads all of them.
    """
    return not plan.processors and pair.drafter is not None and not pair.drafter.scores_pairs
