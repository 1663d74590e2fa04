"""What a draft is worth: acceptance probabilities learned from the rounds' own outcomes.

A drafter's marginals are over-confident with depth, and once a path has left the spine (the drafter's
own best path) the next position's marginal is rarely right.  Both are measured here, per pair, while it
decodes: at every node of an accepted path the target named the one right child, so each candidate of
that node was a hit or a miss.

The counts decay, so they follow the text; they can be saved and loaded.  They change the shape of the
next round's tree and nothing else: what is emitted stays the target's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGES = np.log(np.array([0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97]))
"""Bins of the drafter's own probability."""
BINS = len(EDGES) + 1
PRIOR = np.array([1.0, 0.4])
"""Hits per expected hit, on and off the spine, before anything was seen (arXiv 2604.12989 and users' counts)."""
PSEUDO_HITS = 2.0
DECAY = 0.998
"""Per round: counts half as old as 350 rounds weigh half."""
HIGHEST = 0.995


class DraftCalibration:
    """Corrects a block drafter's log-probabilities by depth, probability, and on or off the spine.

    hits, expected: (2, L, BINS); hits seen, and the sum of the drafter's probabilities; row 0 of the
        first axis is for children of spine nodes.
    """

    def __init__(self, length: int) -> None:
        self.hits = np.zeros((2, length, BINS))
        self.expected = np.zeros((2, length, BINS))

    def apply(
        self, log_probs: NDArray[np.floating], trust: float = 1.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log-probabilities of candidates -> the same for children on and off the spine.

        log_probs: (L, K), each row descending, or (L, K, K) in any order (see Candidates).
        trust: a factor on all probabilities, of this text (Trust).
        """
        if log_probs.ndim == 3:
            order = np.argsort(-log_probs, axis=-1, kind="stable")
            ranked = self._corrected(np.take_along_axis(log_probs, order, axis=-1), trust)
            shifted = np.empty_like(ranked)
            np.put_along_axis(shifted, np.broadcast_to(order, ranked.shape), ranked, axis=-1)
        else:
            shifted = self._corrected(log_probs, trust)
        return shifted[0], shifted[1]

    def _corrected(self, log_probs: NDArray[np.floating], trust: float) -> NDArray[np.float64]:
        """(L, .., K) descending rows -> (2, L, .., K), descending too."""
        bins = np.searchsorted(EDGES, log_probs)
        shift = np.log(self._ratios()[:, : len(log_probs)] * trust)
        shift = shift.reshape(2, len(log_probs), *(1,) * (log_probs.ndim - 2), BINS)
        shifted = log_probs + np.take_along_axis(shift, np.broadcast_to(bins, (2, *bins.shape)), axis=-1)
        # A correction must not reorder candidates, nor let a row promise more than one token.
        shifted = np.minimum.accumulate(shifted, axis=-1)
        total = np.exp(shifted).sum(axis=-1, keepdims=True)
        return shifted - np.log(np.maximum(total / HIGHEST, 1.0))

    def update(
        self,
        log_probs: NDArray[np.floating],
        depths: Sequence[int],
        off_spine: Sequence[bool],
        ranks: Sequence[int],
    ) -> None:
        """One round's outcomes.

        log_probs: (L, K) as drafted: of the rows that scored the accepted path.  For every accepted node
        whose children were drafted: its depth (0..L-1), whether it lies off the spine, and the rank of the
        target's choice among the candidates of position depth + 1, K or more if it was none of them.
        """
        self.hits *= DECAY
        self.expected *= DECAY
        if not len(depths):
            return
        rows = log_probs[list(depths)]
        bins = np.searchsorted(EDGES, rows)
        where = np.asarray(off_spine, np.intp), np.asarray(depths, np.intp)
        np.add.at(self.expected, (where[0][:, None], where[1][:, None], bins), np.exp(rows))
        right = np.asarray(ranks)
        hit = np.flatnonzero(right < rows.shape[1])
        np.add.at(self.hits, (where[0][hit], where[1][hit], bins[hit, right[hit]]), 1.0)

    def _ratios(self) -> NDArray[np.float64]:
        """(2, L, BINS) hits per expected hit; thin cells lean on all depths together, those on the prior."""
        pooled = (self.hits.sum(1) + PSEUDO_HITS * PRIOR[:, None]) / (self.expected.sum(1) + PSEUDO_HITS)
        cells = (self.hits + PSEUDO_HITS * pooled[:, None]) / (self.expected + PSEUDO_HITS)
        return np.maximum(cells, 1e-4)

    def as_dict(self) -> dict[str, Any]:
        return {"hits": self.hits.round(3).tolist(), "expected": self.expected.round(3).tolist()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take over counts of an earlier run; counts of another shape are ignored."""
        hits, expected = np.array(saved.get("hits", [])), np.array(saved.get("expected", []))
        if hits.shape == expected.shape == self.hits.shape:
            self.hits, self.expected = hits, expected


class Trust:
    """How this text's drafts do against what the pair's drafts do elsewhere: decaying hits per expected hit.

    Counts of all texts together take hundreds of rounds to follow a new one; one number takes a few.
    """

    DECAY = 0.9
    PSEUDO_HITS = 1.0

    def __init__(self) -> None:
        self.hits = self.expected = 0.0

    @property
    def factor(self) -> float:
        return (self.hits + self.PSEUDO_HITS) / (self.expected + self.PSEUDO_HITS)

    def update(self, expected: float, hits: float) -> None:
        """The best candidates at a round's accepted nodes: sum of their calibrated chances; how many were right."""
        self.hits = self.DECAY * self.hits + hits
        self.expected = self.DECAY * self.expected + expected


class LookupCalibration:
    """Hit rates of tokens that were copied from an earlier occurrence of the last tokens.

    hits, trials: (match lengths, depths, relations); see `cell`.
    """

    MATCHES = (2, 3, 4, 6, 9, 14, 20)
    DEPTHS = (1, 2, 4, 8)
    PRIOR_BY_MATCH = (0.3, 0.45, 0.55, 0.65, 0.75, 0.85, 0.9)
    PSEUDO_TRIALS = 3.0

    def __init__(self) -> None:
        shape = (len(self.MATCHES), len(self.DEPTHS), 3)
        self.hits, self.trials = np.zeros(shape), np.zeros(shape)

    def cell(self, match: int, depth: int, relation: int) -> tuple[int, int, int]:
        """match: tokens that agree before the copy.  depth: of the copied token, from 1.

        relation: 0 the drafter's own best candidate is the same token, 1 it is another, 2 the
        drafter was not asked or the position lies behind its block.
        """
        row = sum(match >= m for m in self.MATCHES) - 1
        return max(row, 0), sum(depth >= d for d in self.DEPTHS) - 1, relation

    def probability(self, match: int, depth: int, relation: int) -> float:
        cell = self.cell(match, depth, relation)
        prior = self.PRIOR_BY_MATCH[cell[0]] * (0.3 if relation == 1 else 1.0)
        rate = (self.hits[cell] + self.PSEUDO_TRIALS * prior) / (self.trials[cell] + self.PSEUDO_TRIALS)
        return float(min(rate, HIGHEST))

    def update(self, outcomes: Sequence[tuple[tuple[int, int, int], bool]]) -> None:
        """One round's (cell, whether the copied token was right)."""
        self.hits *= DECAY
        self.trials *= DECAY
        for cell, right in outcomes:
            self.trials[cell] += 1.0
            self.hits[cell] += right

    def as_dict(self) -> dict[str, Any]:
        return {"hits": self.hits.round(3).tolist(), "trials": self.trials.round(3).tolist()}

    def load(self, saved: dict[str, Any]) -> None:
        hits, trials = np.array(saved.get("hits", [])), np.array(saved.get("trials", []))
        if hits.shape == trials.shape == self.hits.shape:
            self.hits, self.trials = hits, trials
