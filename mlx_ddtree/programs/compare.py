"""One prompt answered by every method, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlx_ddtree.generation.options import METHODS, GenerationOptions
from mlx_ddtree.generation.stream import GenerationResponse, stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.terminal import table_text

WARM_UP_TOKENS = 16


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


def compare(pair: Pair, prompt: Sequence[int], options: GenerationOptions) -> list[MethodResult]:
    """Decode `prompt` by ar, dflash and ddtree, each after a short warm-up; ar comes first.

    Above temperature 0 the options need a seed, so that all methods draw the same tokens.
    """
    results: list[MethodResult] = []
    for method in reversed(METHODS):
        how = options.changed(method=method)
        for _ in stream_generate(pair, prompt, WARM_UP_TOKENS, options=how):
            pass
        responses = list(stream_generate(pair, prompt, options=how))
        results.append(result_of(method, responses, results[0] if results else None))
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


def print_comparison(results: Sequence[MethodResult], as_json: bool) -> int:
    """Plain decoding's text and a table, or one JSON object."""
    if as_json:
        print(json.dumps({result.method: result.as_dict() for result in results}))
        return 0
    print(results[0].text)
    print(f"\n{comparison_table(results)}")
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
