"""How much an answer repeats what stands before it, and what copying alone would gain."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from mlx_ddtree.budget.recall import Recall
from mlx_ddtree.generation.turns import shared_beginning


def lookup_acceptance(prompt: Sequence[int], answer: Sequence[int], length: int = 15) -> float:
    """tau of a model-free lookup in the text itself that drafts `length` tokens a round."""
    text = [*prompt, *answer]
    recall = Recall([*prompt, answer[0]])
    place = len(prompt) + 1
    rounds = 0
    while place < len(text):
        recall.read(text[:place])
        recalled = recall.next()
        drafted = recalled.best_path(length) if recalled else []
        accepted = shared_beginning(drafted, text[place:])
        place += accepted + 1
        rounds += 1
    return (len(answer) - 1) / max(rounds, 1)


def repeated_share(prompt: Sequence[int], answer: Sequence[int], n: int = 4) -> float:
    """Share of the answer's n-grams that stand earlier in prompt and answer."""
    text = [*prompt, *answer]
    seen: set[tuple[int, ...]] = set()
    repeats = []
    for start in range(len(text) - n + 1):
        gram = tuple(text[start : start + n])
        if start >= len(prompt):
            repeats.append(gram in seen)
        seen.add(gram)
    return mean(repeats) if repeats else 0.0
