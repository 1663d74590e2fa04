"""What a draft is worth: acceptance probabilities learned from the rounds' own outcomes.

A drafter's marginals are over-confident with depth, and once a path has left the spine (the drafter's
own best path) the next position's marginal is rarely right.  Both are measured here, per pair, while it
decodes: at every node of an accepted path the target named the one right child, so each candidate of
that node was a hit or a miss.

The counts decay, so they follow the text; they can be saved and loaded.  They change the shape of the
next round's tree and nothing else: what is emitted stays the target's choice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.tree.lattice import Candidates

EDGES = np.log(np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97]))
"""Between the bins of the drafter's own probability, in which hits are counted; in logs."""
BINS = len(EDGES) + 1
_CHANCES = np.exp(EDGES).tolist()
PRIOR = np.array([1.0, 0.4])
"""Hits per expected hit on the spine and off it, before anything was seen (arXiv 2604.12989 and users' counts)."""
PSEUDO_HITS = 2.0
"""A cell's counts outweigh what is known from elsewhere once more hits than this were expected in it."""
FEWEST_HITS = 1e-4
"""Hits per expected hit never fall below this, so that their logarithm is finite."""
DECAY = 0.998
"""What a round leaves of all earlier counts: those of 350 rounds ago weigh half."""
HIGHEST = 0.995
"""Nothing is believed to be more probable than this, nor all candidates of a position together."""


class DraftCalibration:
    """Corrects a block drafter's log-probabilities by depth, probability, and on or off the spine.

    hits, expected: (2, L, BINS); hits seen, and the sum of the drafter's probabilities.  The first axis is 0 for
        children of spine nodes and 1 for children of others.
    """

    def __init__(self, length: int) -> None:
        self.hits = np.zeros((2, length, BINS))
        self.expected = np.zeros((2, length, BINS))

    def apply(
        self, log_probs: NDArray[np.floating], trust: float = 1.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corrected log-probabilities: those for children on the spine, and those for children off it.

        log_probs: (L, K), descending at each position, or (L, K, K) in any order (see Candidates); both results
            have this shape and order.
        trust: a factor on all probabilities, of this text (Trust).
        """
        if log_probs.ndim == 2:
            corrected = self._corrected(log_probs, trust)
        else:
            order = np.argsort(-log_probs, axis=-1, kind="stable")
            descending = self._corrected(np.take_along_axis(log_probs, order, axis=-1), trust)
            corrected = np.empty_like(descending)
            np.put_along_axis(corrected, np.broadcast_to(order, descending.shape), descending, axis=-1)
        return corrected[0], corrected[1]

    def _corrected(self, log_probs: NDArray[np.floating], trust: float) -> NDArray[np.float64]:
        """(L, ..., K), descending on the last axis -> (2, L, ..., K), descending too."""
        # 1. Every probability times the hit rate of its cell.
        log_ratios = np.log(self._ratios() * trust)
        depths = np.arange(len(log_probs)).reshape(-1, *[1] * (log_probs.ndim - 1))
        corrected = log_probs + log_ratios[:, depths, EDGES.searchsorted(log_probs)]
        # 2. A correction must not reorder candidates, nor let a position promise more than one token.
        corrected = np.minimum.accumulate(corrected, axis=-1)
        total = np.exp(corrected).sum(axis=-1, keepdims=True)
        return corrected - np.log(np.maximum(total / HIGHEST, 1.0))

    def update(
        self,
        log_probs: NDArray[np.floating],
        depths: Sequence[int],
        off_spine: Sequence[bool],
        ranks: Sequence[int],
    ) -> None:
        """Count one round's outcomes.

        log_probs: (L, K) as drafted: of the candidates along the accepted path.  The other arguments have an entry
        for every accepted node whose children were drafted: its depth (0..L-1), whether it lies off the spine, and
        the rank of the target's choice among the candidates of position depth + 1, K or more if it was none of them.
        """
        self.hits *= DECAY
        self.expected *= DECAY
        if not len(depths):
            return
        side = np.array(off_spine, np.intp)[:, None]
        depth = np.array(depths, np.intp)[:, None]
        drafted = log_probs[depth[:, 0]]
        bins = EDGES.searchsorted(drafted)
        np.add.at(self.expected, (side, depth, bins), np.exp(drafted))
        for node, rank in enumerate(ranks):
            if rank < drafted.shape[1]:
                self.hits[side[node, 0], depth[node, 0], bins[node, rank]] += 1.0

    def _ratios(self) -> NDArray[np.float64]:
        """(2, L, BINS) hits per expected hit; thin cells lean on all depths together, those on the prior."""
        pooled = (self.hits.sum(1) + PSEUDO_HITS * PRIOR[:, None]) / (self.expected.sum(1) + PSEUDO_HITS)
        cells = (self.hits + PSEUDO_HITS * pooled[:, None]) / (self.expected + PSEUDO_HITS)
        return np.maximum(cells, FEWEST_HITS)

    def learn(self, candidates: Candidates, chosen: Sequence[int], trust: Trust) -> None:
        """Count which candidate was right at each accepted node whose children were drafted.

        chosen: what the target said after each accepted node, root first.  trust: of the text, which hears of it, too.
        """
        # 1. The rank of the target's choice after each node; the number of candidates where it was none of them.
        along = candidates.along(chosen)
        rows: list[list[int]] = along.token_ids.tolist()
        ranks = [row.index(token) if token in row else len(row) for row, token in zip(rows, chosen, strict=False)]
        # 2. A node is off the spine once a choice before it was not the best candidate.
        off_spine = [any(ranks[:node]) for node in range(len(ranks))]
        # 3. What was expected of the best candidates, before this round counts.
        spine_scores, off_spine_scores = self.apply(along.log_probs)
        chances = np.exp(np.where(off_spine, off_spine_scores[:, 0], spine_scores[:, 0]))
        trust.update(float(chances.sum()), ranks.count(0))
        self.update(along.log_probs, range(len(ranks)), off_spine, ranks)

    def as_dict(self) -> dict[str, Any]:
        """The counts, for JSON."""
        return {"hits": self.hits.round(3).tolist(), "expected": self.expected.round(3).tolist()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take over counts of an earlier run; counts of another shape are ignored."""
        hits = np.array(saved.get("hits", []))
        expected = np.array(saved.get("expected", []))
        if hits.shape == expected.shape == self.hits.shape:
            self.hits = hits
            self.expected = expected


class Trust:
    """How this text's drafts do against what the pair's drafts do elsewhere: decaying hits per expected hit.

    Counts of all texts together take hundreds of rounds to follow a new one; one number takes a few.

    at_first: the factor before anything was seen, as if `pseudo_hits` hits had been expected.
    decay: what a round leaves of earlier counts; with 0.9 about ten rounds are remembered.
    """

    def __init__(self, at_first: float = 1.0, pseudo_hits: float = 1.0, decay: float = 0.9) -> None:
        self.at_first = at_first
        self.pseudo_hits = pseudo_hits
        self.decay = decay
        self.hits = 0.0
        self.expected = 0.0

    @property
    def factor(self) -> float:
        """By which probabilities are multiplied for this text."""
        return (self.hits + self.at_first * self.pseudo_hits) / (self.expected + self.pseudo_hits)

    def update(self, expected: float, hits: float) -> None:
        """Count a round: the summed chances of the best candidates at its accepted nodes, and how many were right."""
        self.hits = self.decay * self.hits + hits
        self.expected = self.decay * self.expected + expected


AGREES = 0
"""A recalled token is the drafter's own best candidate for its place."""
DISAGREES = 1
"""The drafter's best candidate for a recalled token's place is another token."""
UNASKED = 2
"""The drafter was not asked, or a recalled token's place lies behind its block."""


class RecallCalibration:
    """Corrects the chances of tokens that stood behind the same tokens before (budget/recall.py).

    hits, expected: (len(MATCHES), BINS, 3); hits seen, and the sum of the chances as counted.  The axes are the tokens
        that agree before a candidate, its chance, and its relation to the drafter's best one: AGREES, DISAGREES or
        UNASKED.
    """

    MATCHES = (1, 2, 3, 4, 6, 9, 14)
    """Tokens that agree before a candidate: the least of each cell."""
    PRIOR_BY_MATCH = (0.4, 0.65, 0.85, 0.9, 0.92, 0.92, 0.96)
    """Hits per expected hit by MATCHES before anything was seen (studies/budget/memory_walk.py)."""
    AGAINST_THE_DRAFTER = 0.3
    """What is left of these where the drafter's best candidate is another token."""

    def __init__(self) -> None:
        shape = (len(self.MATCHES), BINS, 3)
        self.hits = np.zeros(shape)
        self.expected = np.zeros(shape)
        self._ratios: list[list[list[float]]] | None = None

    def cell(self, match: int, chance: float, relation: int) -> tuple[int, int, int]:
        """Where a candidate is counted; chance: as counted, above 0."""
        return max(bisect_right(self.MATCHES, match) - 1, 0), bisect_right(_CHANCES, chance), relation

    def apply(
        self, matches: Sequence[int], chances: Sequence[float], relations: Sequence[int], trust: float = 1.0
    ) -> list[float]:
        """The chances of one place's candidates, corrected, in the order given; all together HIGHEST at most.

        trust: a factor on all of them, of this text (Trust).
        """
        if self._ratios is None:
            self._ratios = self._hits_per_expected()
        corrected = []
        for match, chance, relation in zip(matches, chances, relations, strict=True):
            row, column, _ = self.cell(match, chance, relation)
            corrected.append(chance * self._ratios[row][column][relation] * trust)
        total = sum(corrected)
        if total > HIGHEST:
            corrected = [chance * HIGHEST / total for chance in corrected]
        return corrected

    def _hits_per_expected(self) -> list[list[list[float]]]:
        """By cell; thin cells lean on all chances of their match together, those on the prior."""
        prior = np.outer(self.PRIOR_BY_MATCH, [1.0, self.AGAINST_THE_DRAFTER, 1.0])
        pooled = (self.hits.sum(1) + PSEUDO_HITS * prior) / (self.expected.sum(1) + PSEUDO_HITS)
        cells = (self.hits + PSEUDO_HITS * pooled[:, None]) / (self.expected + PSEUDO_HITS)
        ratios: list[list[list[float]]] = np.maximum(cells, FEWEST_HITS).tolist()
        return ratios

    def update(self, outcomes: Sequence[tuple[tuple[int, int, int], float, bool]]) -> None:
        """Count one round's candidates: (cell, chance as counted, whether the token was right)."""
        self._ratios = None
        self.hits *= DECAY
        self.expected *= DECAY
        for cell, chance, right in outcomes:
            self.expected[cell] += chance
            self.hits[cell] += right

    def as_dict(self) -> dict[str, Any]:
        """The counts, for JSON."""
        return {"hits": self.hits.round(3).tolist(), "expected": self.expected.round(3).tolist()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take over counts of an earlier run; counts of another shape are ignored."""
        hits = np.array(saved.get("hits", []))
        expected = np.array(saved.get("expected", []))
        if hits.shape == expected.shape == self.hits.shape:
            self.hits = hits
            self.expected = expected
            self._ratios = None
