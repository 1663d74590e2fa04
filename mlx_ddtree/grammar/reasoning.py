"""Where in an answer its form begins: at its first token, or behind what the model thinks before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reasoning:
    """How a model's reasoning is marked, and whether it has begun in the prompt.

    start, end: the tokens of its marks.
    begun: whether the prompt ends within it; else the answer may begin with `start`, or do without.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    begun: bool

    def is_reasoning(self, answer: Sequence[int]) -> bool:
        """Whether an answer of one token or more began with reasoning."""
        return self.begun or answer[0] == self.start[0]

    def form_begins(self, answer: Sequence[int], searched: int = 0) -> int | None:
        """The place behind an answer's reasoning, None while that goes on; searched: first tokens without its end."""
        if not self.begun and not answer:
            return 0
        if not self.is_reasoning(answer):
            return 0
        first = max(searched - len(self.end) + 1, 0)
        for place in range(first, len(answer) - len(self.end) + 1):
            if tuple(answer[place : place + len(self.end)]) == self.end:
                return place + len(self.end)
        return None
