"""Where a text's caches have stood: places that they can go back to, though nothing can be cut from them.

Keys, values and the drafter's rows are cut by their number.  States of recurrent layers, windows of convolutions and
rings are not, so a place keeps those of its own, and that is all that it costs.  The places of one text share a bound
of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlx_ddtree.decoding.context import Coverage
from mlx_ddtree.target.marks import Mark, mark_bytes

RUNG = 8192
"""Tokens without a message's beginning after which a place is kept anyway."""


@dataclass(frozen=True)
class Place:
    """Where the caches stood when they held the text's first `tokens` tokens.

    mark: of the target's caches.
    coverage: what they held of those tokens.
    anchor: whether prompts depart here: behind the system prompt, or where one has departed already.
    """

    tokens: int
    mark: Mark
    coverage: Coverage
    anchor: bool = False

    @property
    def nbytes(self) -> int:
        """Memory of what is kept for this place alone."""
        return mark_bytes(self.mark)


class Places:
    """The places of one text, ascending, of `most_bytes` in all."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._kept: tuple[Place, ...] = ()

    def __iter__(self) -> Iterator[Place]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory of all of them."""
        return sum(place.nbytes for place in self._kept)

    @property
    def last(self) -> int:
        """Tokens before the last place; 0 without one."""
        return self._kept[-1].tokens if self._kept else 0

    def before(self, tokens: int, coverage: Coverage) -> Place | None:
        """The last place within the first `tokens` tokens.

        coverage: of the caches as they are: a filter that has run since a place was kept has taken its rows.
        """
        within = [p for p in self._kept if p.tokens <= tokens and p.coverage.filtered == coverage.filtered]
        return within[-1] if within else None

    def add(self, place: Place) -> None:
        """Keep a place, if there is anything to go back to and room for it; others go for it."""
        if place.nbytes:
            self._kept = _thinned([*(p for p in self._kept if p.tokens < place.tokens), place], self.most_bytes)

    def cut(self, tokens: int) -> None:
        """Forget what lies behind the first `tokens` tokens."""
        self._kept = tuple(place for place in self._kept if place.tokens <= tokens)

    def copy(self) -> Places:
        """Places of a text that begins alike."""
        copied = Places(self.most_bytes)
        copied._kept = self._kept
        return copied


def _thinned(places: list[Place], most_bytes: int) -> tuple[Place, ...]:
    """What of these places stays within the bound.

    The first to go is where going without costs least: a prompt that departs behind it has all that follows to process
    anyway, and the tokens from the place before it on top.  So places lie the closer the nearer to the end, and what is
    processed twice stays a small share of what must be processed.  Anchors go last.
    """
    end = places[-1].tokens + 1
    while places and sum(place.nbytes for place in places) > most_bytes:
        before = [0, *(place.tokens for place in places)]
        costs = [
            (p.anchor, (p.tokens - previous) / (end - p.tokens)) for p, previous in zip(places, before, strict=False)
        ]
        places.pop(costs.index(min(costs)))
    return tuple(places)
