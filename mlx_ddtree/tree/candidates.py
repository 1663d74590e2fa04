"""What a drafter proposed for the next positions, whether or not its scores depend on the parent's token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Candidates(NamedTuple):
    """token_ids (L, K) int32 and log_probs, float32 over the whole vocabulary.

    log_probs: (L, K), descending, where a position's scores are the same after every parent.  Or (L, K, K) in
    any order: [d, r] scores the candidates of position d after candidate r of position d - 1; at position 0
    the parent is the root and r = 0 is read.
    """

    token_ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]

    @property
    def pairwise(self) -> bool:
        return self.log_probs.ndim == 3

    def along(self, path: Sequence[int]) -> Candidates:
        """The rows (n, K), descending, that scored the tokens of a path from the root; n <= len(path).

        They end with the block, and after a parent that the drafter did not propose if scores depend on it.
        """
        if not self.pairwise:
            return Candidates(self.token_ids[: len(path)], self.log_probs[: len(path)])
        parents = [0]
        for tokens, token in zip(self.token_ids[:-1], path[:-1], strict=False):
            if not (found := np.flatnonzero(tokens == token)).size:
                break
            parents.append(int(found[0]))
        count = min(len(parents), len(path))
        rows = self.log_probs[np.arange(count), parents[:count]]
        order = np.argsort(-rows, axis=-1, kind="stable")
        return Candidates(
            np.take_along_axis(self.token_ids[:count], order, axis=-1), np.take_along_axis(rows, order, axis=-1)
        )

    def greedy(self) -> Candidates:
        """The drafter's own best path, (L, 1): the best child of the best child, and so on."""
        if not self.pairwise:
            return Candidates(self.token_ids[:, :1], self.log_probs[:, :1])
        ranks = best_ranks(self.log_probs)
        places = np.arange(len(ranks))
        scores = self.log_probs[places, np.array([0, *ranks[:-1]], np.intp)[: len(ranks)], ranks]
        return Candidates(self.token_ids[places, ranks][:, None], scores[:, None])


def best_ranks(log_probs: NDArray[np.floating]) -> NDArray[np.intp]:
    """(L, K, K) scores of pairs -> the candidate (L,) that the greedy path takes at each position."""
    ranks: list[int] = []
    for rows in log_probs:
        ranks.append(int(rows[ranks[-1] if ranks else 0].argmax()))
    return np.array(ranks, np.intp)
