"""How much an answer repeats what stands before it, and what copying alone would gain."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from mlx_ddtree.budget.lookup import LookupIndex


def lookup_acceptance(prompt: Sequence[int], answer: Sequence[int], length: int = 15) -> float:
    """tau of a model-free n-gram lookup that drafts `length` tokens a round."""
    full, index, place, rounds = [*prompt, *answer], LookupIndex([*prompt, answer[0]]), len(prompt) + 1, 0
    while place < len(full):
        copy = index.continuation(length)
        drafted = list(copy.token_ids[:length]) if copy else []
        pairs = zip(drafted, full[place:], strict=False)
        accepted = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(drafted), len(full) - place))
        index.extend(full[place : place + accepted + 1])
        place += accepted + 1
        rounds += 1
    return (len(answer) - 1) / max(rounds, 1)


def repeated_share(prompt: Sequence[int], answer: Sequence[int], n: int = 4) -> float:
    """Share of the answer's n-grams that stand earlier in prompt and answer."""
    full, seen, hits = [*prompt, *answer], set[tuple[int, ...]](), []
    for i in range(len(full) - n + 1):
        gram = tuple(full[i : i + n])
        if i >= len(prompt):
            hits.append(gram in seen)
        seen.add(gram)
    return mean(hits) if hits else 0.0
