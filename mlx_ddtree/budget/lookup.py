"""Prompt lookup: text repeats itself, so what followed the last tokens earlier may follow them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST = 2
"""Tokens that have to agree before a continuation is copied."""
LONGEST = 32
"""Tokens before the end that are compared; a longer match says no more."""
PLACES = 4
"""Earlier occurrences that are compared; the longest match wins, then the latest."""


@dataclass(frozen=True)
class Copy:
    """token_ids: what followed the earlier occurrence.  match: how many tokens before it agree."""

    token_ids: Sequence[int]
    match: int


class LookupIndex:
    """Where every pair of tokens last stood in a growing text."""

    def __init__(self, token_ids: Sequence[int] = ()) -> None:
        self._text: list[int] = []
        self._ends: dict[tuple[int, ...], list[int]] = {}  # by the pair of tokens: the places behind it
        self.extend(token_ids)

    def __len__(self) -> int:
        return len(self._text)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Add the text's next tokens."""
        for token in token_ids:
            self._text.append(token)
            if len(self._text) < SHORTEST:
                continue
            pair = tuple(self._text[-SHORTEST:])
            ends = self._ends.setdefault(pair, [])
            ends.append(len(self._text))
            del ends[: -PLACES - 1]  # one more than PLACES, because the end of the text itself is among them

    def continuation(self, length: int) -> Copy | None:
        """`length` tokens that followed the best earlier occurrence of the text's end; None if it has none."""
        best_end = 0
        best_match = 0
        for end in reversed(self._ends.get(tuple(self._text[-SHORTEST:]), [])):
            if end == len(self._text):
                continue
            match = self._match(end)
            if match > best_match:
                best_end = end
                best_match = match
        if not best_match:
            return None
        return Copy(self._copied(best_end, length), best_match)

    def _match(self, end: int) -> int:
        """How many tokens before `end` agree with the text's last ones; a pair of them is known to."""
        text = self._text
        match = SHORTEST
        while match < min(LONGEST, end) and text[end - match - 1] == text[len(text) - match - 1]:
            match += 1
        return match

    def _copied(self, start: int, length: int) -> list[int]:
        """`length` tokens from `start` on; a copy that runs into the text's end goes on with its own beginning."""
        copied = self._text[start : start + length]
        period = len(self._text) - start
        while len(copied) < length:
            copied.append(copied[len(copied) - period])
        return copied
