"""Earlier answers that later texts may copy from."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_ddtree.budget.suffixes import CAPACITY, END, SuffixIndex

LEAD = 4
"""Tokens of a prompt's end that are remembered before its answer: how answers begin is known behind them."""
SHORTEST = 4
"""Answers of fewer tokens are not worth a place."""


class Memory:
    """Answers of one model, the oldest of which are forgotten once they are more than `capacity` tokens.

    Whoever is given one copies from all that is in it, so it should not be shared among users who may not read each
    other's texts: how fast an answer comes says something about what is remembered.

    index: what rounds look in.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.index = SuffixIndex(capacity=capacity)

    def __repr__(self) -> str:
        return f"Memory({len(self.index)} of {self.index.capacity} tokens)"

    def remember(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Add an answer's tokens, behind the end of its prompt's."""
        if len(answer) >= SHORTEST:
            self.add([*prompt[-LEAD:], *answer, END])

    def add(self, token_ids: Sequence[int]) -> None:
        """Add whole texts, each with END behind it."""
        self.index.extend(token_ids)

    def keep(self) -> None:
        """Make what was added last, if it is to outlive the process; here it is not."""
