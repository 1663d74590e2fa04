"""The same prompt by every method, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlx_ddtree.decoding.sampling import make_sampler
from mlx_ddtree.generation.options import METHODS
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.cli import columns

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


def compare(pair: Pair, prompt: Sequence[int], options: Mapping[str, Any]) -> list[MethodResult]:
    """Decode `prompt` by ar, dflash and ddtree, each after a short warm-up; ar comes first.

    With a sampler that has a seed of its own, all methods draw the same tokens.
    """
    options = {**options, "sampler": options.get("sampler") or make_sampler()}
    results: list[MethodResult] = []
    for method in reversed(METHODS):
        for _ in stream_generate(pair, prompt, method=method, **{**options, "max_tokens": WARM_UP_TOKENS}):
            pass
        responses = list(stream_generate(pair, prompt, method=method, **options))
        tokens = [token for response in responses for token in response.tokens]
        last, plain = responses[-1], results[0] if results else None
        results.append(
            MethodResult(
                method=method,
                text="".join(response.text for response in responses),
                tokens=tokens,
                generation_tps=last.generation_tps,
                acceptance_length=last.mean_acceptance_length,
                rounds=last.rounds,
                speedup=last.generation_tps / plain.generation_tps if plain else 1.0,
                identical=plain is None or tokens == plain.tokens,
            )
        )
    return results


def comparison_table(results: Sequence[MethodResult]) -> str:
    return columns(
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
