"""One prompt answered by every method, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlx_ddtree.generation.options import METHODS, GenerationOptions
from mlx_ddtree.generation.stream import GenerationResponse, stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.race_bars import RaceBars
from mlx_ddtree.terminal import is_lively, table_text
from mlx_ddtree.tuning.measure import profile_of

WARM_UP_TOKENS = 16
RUNNING_ORDER = METHODS[::-1]
"""Plain decoding first: the others are compared with it."""


@dataclass(frozen=True)
class MethodResult:
    """One method's answer and speed.

    speedup: against plain decoding ('ar') in the same run.
    identical: whether the tokens equal plain decoding's.
    """

    method: str
    text: str
    tokens: list[int]
    generation_tps: float
    acceptance_length: float
    rounds: int
    speedup: float
    identical: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    pair: Pair, prompt: Sequence[int], options: GenerationOptions, bars: RaceBars | None = None
) -> list[MethodResult]:
    """Decode `prompt` by ar, dflash and ddtree, each after a short warm-up; ar comes first.

    bars: show it while it happens.

    Above temperature 0 the options need a seed, so that all methods draw the same tokens.
    """
    results: list[MethodResult] = []
    for method in RUNNING_ORDER:
        how = options.changed(method=method)
        for _ in stream_generate(pair, prompt, WARM_UP_TOKENS, options=how):
            pass
        responses = []
        for response in stream_generate(pair, prompt, options=how):
            responses.append(response)
            if bars is not None:
                bars.tell(method, response)
        results.append(result_of(method, responses, results[0] if results else None))
        if bars is not None:
            bars.finish(method, results[-1].identical)
    return results


def result_of(method: str, responses: Sequence[GenerationResponse], plain: MethodResult | None) -> MethodResult:
    """What a method's responses come to; plain: plain decoding's result, or None if this is it."""
    tokens = [token for response in responses for token in response.tokens]
    last = responses[-1]
    return MethodResult(
        method=method,
        text="".join(response.text for response in responses),
        tokens=tokens,
        generation_tps=last.generation_tps,
        acceptance_length=last.mean_acceptance_length,
        rounds=last.rounds,
        speedup=1.0 if plain is None else last.generation_tps / plain.generation_tps,
        identical=plain is None or tokens == plain.tokens,
    )


def print_comparison(pair: Pair, prompt: Sequence[int], options: GenerationOptions, as_json: bool) -> int:
    """Compare, and print one JSON object; or plain decoding's text, and a table, or bars at a terminal."""
    if as_json:
        results = compare(pair, prompt, options)
        print(json.dumps({result.method: result.as_dict() for result in results}))
    elif is_lively():
        profile_of(pair)  # has a bar of its own where it is measured now
        with RaceBars(list(RUNNING_ORDER), options.max_tokens) as bars:
            results = compare(pair, prompt, options, bars)
        print(results[0].text)
    else:
        results = compare(pair, prompt, options)
        print(f"{results[0].text}\n\n{comparison_table(results)}")
    return 0


def comparison_table(results: Sequence[MethodResult]) -> str:
    """A line for each method."""
    return table_text(
        [
            {
                "method": r.method,
                "tokens": len(r.tokens),
                "rounds": r.rounds,
                "tok/s": f"{r.generation_tps:.1f}",
                "acceptance length": f"{r.acceptance_length:.2f}",
                "speedup": f"{r.speedup:.2f}x",
                "identical tokens": "yes" if r.identical else "NO",
            }
            for r in results
        ]
    )
