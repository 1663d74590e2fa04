"""Prompt lookup: text repeats itself, so what followed the last tokens earlier may follow them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST = 2
LONGEST = 32
PLACES = 4
"""Earlier occurrences that are compared; the longest match wins, then the latest."""


@dataclass(frozen=True)
class Copy:
    """token_ids: what followed the earlier occurrence.  match: how many tokens before it agree."""

    token_ids: Sequence[int]
    match: int


class LookupIndex:
    """The places of every pair of tokens in a growing text."""

    def __init__(self, token_ids: Sequence[int] = ()) -> None:
        self._text: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self.extend(token_ids)

    def __len__(self) -> int:
        return len(self._text)

    def extend(self, token_ids: Sequence[int]) -> None:
        for token in token_ids:
            self._text.append(token)
            if len(self._text) >= SHORTEST:
                places = self._places.setdefault(tuple(self._text[-SHORTEST:]), [])
                places.append(len(self._text))
                del places[: -PLACES - 1]  # the end of the text itself is one of them

    def continuation(self, length: int) -> Copy | None:
        """Up to `length` tokens that followed the best earlier occurrence of the text's end."""
        text, end = self._text, len(self._text)
        best, best_match = 0, 0
        for place in reversed(self._places.get(tuple(text[-SHORTEST:]), ())):
            if place == end:
                continue
            match = SHORTEST
            while match < LONGEST and place > match and text[place - match - 1] == text[end - match - 1]:
                match += 1
            if match > best_match:
                best, best_match = place, match
        if not best_match:
            return None
        copied, period = text[best : best + length], end - best
        while len(copied) < length:  # the copy runs into the text's end: the text is repeating itself
            copied.append(copied[len(copied) - period])
        return Copy(copied, best_match)
