"""What a text is likely to say next by what it, and texts before it, said behind the same tokens.

Tokens found behind longer matches weigh more, and those of the text itself more than those of others.  A candidate's
chance depends on the whole path before it: every path has a lookup of its own, made when it is first asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlx_ddtree.budget.suffixes import LONGEST, SuffixIndex

WEIGHTS = [math.exp(0.5 * (min(match, 12) - 1)) for match in range(LONGEST + 1)]
"""Of a place by the tokens that agree before it.  Chosen on answers of SmolLM2-135M (studies/budget/memory_walk.py)."""
OWN = 4.0
"""Weight of a place in the text itself; one of another text weighs 1."""
UNKNOWN = 1.0
"""Weight of what was never seen."""
WIDTH = 8
"""Candidates of a place: the most probable ones."""


class Recalled:
    """The candidates behind one path, most probable first.

    token_ids, chances: of each, given the path; the chances add up to less than 1, and are as counted, not calibrated.
    matches: the tokens that agree before each candidate where that is longest.
    relations: of each to the drafter's best one (budget/calibration.py); None until it is compared.
    """

    __slots__ = ("_after", "_context", "_recall", "chances", "matches", "relations", "token_ids")

    def __init__(self, recall: Recall, context: Sequence[int]) -> None:
        self._recall = recall
        self._context = context
        self._after: dict[int, Recalled] = {}
        weights: dict[int, float] = {}
        longest: dict[int, int] = {}
        total = UNKNOWN
        for source, factor in recall.sources:
            for match, token in source.followers(context):
                weight = factor * WEIGHTS[match]
                total += weight
                weights[token] = weights.get(token, 0.0) + weight
                longest[token] = max(longest.get(token, 0), match)
        best = sorted(weights, key=weights.__getitem__, reverse=True)[:WIDTH]
        self.token_ids: list[int] = best
        self.chances: list[float] = [weights[token] / total for token in best]
        self.matches: list[int] = [longest[token] for token in best]
        self.relations: list[int] | None = None

    def after(self, token: int) -> Recalled:
        """What may follow once `token` has."""
        found = self._after.get(token)
        if found is None:
            found = Recalled(self._recall, [*self._context[-LONGEST + 1 :], token])
            self._after[token] = found
        return found

    def known_after(self, token: int) -> Recalled | None:
        """What may follow once `token` has, if that was looked up."""
        return self._after.get(token)

    def best_path(self, length: int) -> list[int]:
        """The most probable token of every place, `length` at most."""
        path: list[int] = []
        following = self
        while len(path) < length and following.token_ids:
            path.append(following.token_ids[0])
            following = following.after(path[-1])
        return path


class Recall:
    """One growing text and what it is compared with.

    others: indexes of earlier texts, which are only read.
    """

    def __init__(self, token_ids: Sequence[int] = (), others: Sequence[SuffixIndex] = ()) -> None:
        self.text = SuffixIndex(token_ids)
        self.sources = [(self.text, OWN), *((index, 1.0) for index in others)]
        self._end = list(token_ids[-LONGEST:])

    def read(self, token_ids: Sequence[int]) -> None:
        """The whole text so far; what was not given before is new."""
        new = token_ids[self.text.added :]
        if new:
            self.text.extend(new)
            self._end = list(token_ids[-LONGEST:])

    def next(self) -> Recalled | None:
        """What may follow the text; None where nothing is known."""
        found = Recalled(self, self._end)
        return found if found.token_ids else None
