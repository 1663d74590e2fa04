"""A draft's lattice with what a grammar forbids left out, and with what it forces put in.

Which tokens are allowed depends on the whole path, so the lattice unfolds as far as a tree grows into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

from mlx_ddtree.grammar.walk import GrammarWalk, Path
from mlx_ddtree.tree.lattice import END, NextTokens, after_token, off_spine_by_depth

LONGEST = 128
"""Tokens of a path: a grammar may force thousands."""
LIKELIEST = math.log(0.999)
"""The score of a token that need not follow: only what must is certain."""


def follow_grammar(walk: GrammarWalk, first: NextTokens) -> NextTokens:
    """What of a lattice may follow the text where a walk stands.

    A token that must follow is certain, whether the draft has it or not, and the draft goes on behind it; so the empty
    lattice becomes the chain of what must follow.  Elsewhere the tokens that are allowed share what probability the
    forbidden ones had.
    """
    return _Unfolding(walk, off_spine_by_depth(first)).row(first, ())


class _Unfolding:
    """off_spine: by depth, what the draft has behind a token that it did not propose."""

    def __init__(self, walk: GrammarWalk, off_spine: Sequence[NextTokens]) -> None:
        self.walk = walk
        self.off_spine = off_spine

    def row(self, following: NextTokens, path: Path) -> NextTokens:
        """What may follow a path, of what the draft says may follow it."""
        if len(path) >= LONGEST or self.walk.ends(path):
            return END
        place = self.walk.place(path)
        if place.only is not None:
            return NextTokens([place.only], [0.0], _Later(self, following, path, [place.only]))
        tokens: list[int] = []
        scores: list[float] = []
        forbidden = 0.0
        for token, score in zip(following.token_ids, following.scores, strict=True):
            if place.allows(token):
                tokens.append(token)
                scores.append(score)
            else:
                forbidden += math.exp(score)
        if not tokens:
            return END
        return NextTokens(tokens, _shared_out(scores, forbidden), _Later(self, following, path, tokens))


def _shared_out(scores: list[float], forbidden: float) -> list[float]:
    """Scores whose probabilities add up to 1 at most, once the others' `forbidden` probability is theirs."""
    allowed = sum(map(math.exp, scores))
    if allowed == 0.0:
        return scores
    shift = -math.log(max(1.0 - forbidden, allowed)) if forbidden else 0.0
    return [min(score + shift, LIKELIEST) for score in scores]


class _Later(Sequence[NextTokens | None]):
    """What follows each token of a row, worked out when it is first asked for."""

    def __init__(self, unfolding: _Unfolding, following: NextTokens, path: Path, tokens: list[int]) -> None:
        self._unfolding = unfolding
        self._following = following
        self._path = path
        self._tokens = tokens
        self._known: dict[int, NextTokens] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, rank: int) -> NextTokens | None: ...

    @overload
    def __getitem__(self, rank: slice) -> Sequence[NextTokens | None]: ...

    def __getitem__(self, rank: int | slice) -> NextTokens | Sequence[NextTokens | None] | None:
        if isinstance(rank, slice):
            return [self[place] for place in range(*rank.indices(len(self)))]
        if rank not in self._known:
            token = self._tokens[rank]
            path = (*self._path, token)
            after = after_token(self._following, token, self._unfolding.off_spine, len(path))
            self._known[rank] = self._unfolding.row(after, path)
        return self._known[rank]
