"""What a drafter proposed for the next positions, whether or not its scores depend on the parent's token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Candidates(NamedTuple):
    """K candidate tokens for each of the L positions after the root, and how probable the drafter finds them.

    token_ids: (L, K) int32, distinct at each position.
    log_probs: float32, over the whole vocabulary.  (L, K), descending, where a position's scores are the same after
        every parent.  Or (L, K, K) in any order: [d, r] scores the candidates of position d after candidate r of
        position d - 1; at position 0 the parent is the root and r = 0 is read.
    """

    token_ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]

    @property
    def pairwise(self) -> bool:
        """Whether the scores depend on the parent's token."""
        return self.log_probs.ndim == 3

    def along(self, path: Sequence[int]) -> Candidates:
        """The n candidate lists that scored the tokens of a path from the root, best first: (n, K), n <= len(path).

        The lists end with the block.  Where scores depend on the parent, no list scores what follows a token that
        the drafter did not propose, so they end there too.
        """
        if not self.pairwise:
            return Candidates(self.token_ids[: len(path)], self.log_probs[: len(path)])
        parent_ranks = self._parent_ranks(path)
        count = min(len(parent_ranks), len(path))
        scores = self.log_probs[np.arange(count), parent_ranks[:count]]
        best_first = np.argsort(-scores, axis=-1, kind="stable")
        return Candidates(
            np.take_along_axis(self.token_ids[:count], best_first, axis=-1),
            np.take_along_axis(scores, best_first, axis=-1),
        )

    def _parent_ranks(self, path: Sequence[int]) -> list[int]:
        """For every token of the path that was scored, which candidate its parent is; 0 stands for the root."""
        ranks = [0]
        for candidates, token in zip(self.token_ids[:-1], path[:-1], strict=False):
            found = np.flatnonzero(candidates == token)
            if not found.size:
                break
            ranks.append(int(found[0]))
        return ranks

    def greedy(self) -> Candidates:
        """The drafter's own best path, (L, 1): the best child of the best child, and so on."""
        if not self.pairwise:
            return Candidates(self.token_ids[:, :1], self.log_probs[:, :1])
        ranks = best_ranks(self.log_probs)
        positions = np.arange(len(ranks))
        scores = self.log_probs[positions, ranks_of_parents(ranks), ranks]
        return Candidates(self.token_ids[positions, ranks][:, None], scores[:, None])


def best_ranks(log_probs: NDArray[np.floating]) -> NDArray[np.intp]:
    """The candidate (L,) that the greedy path takes at each position, by the scores (L, K, K) of pairs."""
    ranks: list[int] = []
    parent = 0
    for scores in log_probs:
        parent = int(scores[parent].argmax())
        ranks.append(parent)
    return np.array(ranks, np.intp)


def ranks_of_parents(ranks: NDArray[np.intp]) -> NDArray[np.intp]:
    """For the candidates (L,) of a path, the candidate (L,) before each of them; 0 stands for the root."""
    return np.concatenate([[0], ranks])[: len(ranks)].astype(np.intp)
