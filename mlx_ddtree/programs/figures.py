"""The line of figures behind an answer: tokens, tokens a second, acceptance, and the speedup where it is known."""

from __future__ import annotations

from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.pair import Pair

FEWEST_ROUNDS = 3
"""Rounds that a speedup needs; fewer say little of a speed."""


def brief(last: GenerationResponse, plain_tps: float | None = None) -> str:
    """One line about an answer; plain_tps: tokens a second that plain decoding makes here, where that is known."""
    figures = [
        f"{last.generation_tokens} tokens",
        f"{last.generation_tps:.0f} tok/s",
        f"{last.mean_acceptance_length:.1f} a round",
    ]
    if plain_tps is not None and last.rounds >= FEWEST_ROUNDS:
        figures.append(f"{last.generation_tps / plain_tps:.1f}x plain decoding")
    lost = last.compression
    if lost is not None and lost.kept_tokens < lost.prompt_tokens:
        figures.append(f"{lost.kept_tokens} of {lost.prompt_tokens} prompt tokens kept")
    if last.finish_reason == "length":
        figures.append("cut at the limit")
    return " · ".join(figures)


def measured_plain_tps(pair: Pair, context: int) -> float | None:
    """Tokens a second of plain decoding behind so many tokens, as measured for this pair here; None: not measured."""
    if pair.profile is None:
        return None
    return 1 / pair.profile.cost.step(context)
