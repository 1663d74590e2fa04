"""One prompt answered by every method, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from secrets import randbits
from typing import Any, Protocol

from mlx_ddtree.benchmarking.report import Table
from mlx_ddtree.generation.calls import options_of
from mlx_ddtree.generation.options import METHODS, GenerationOptions
from mlx_ddtree.generation.prompts import Prompt, prompt_token_ids
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.generation.stream import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.pictures.bars_svg import Bar, bars_svg
from mlx_ddtree.pictures.picture import Picture
from mlx_ddtree.pictures.tables import rows_table
from mlx_ddtree.terminal import table_text

WARM_UP_TOKENS = 16
RUNNING_ORDER = METHODS[::-1]
"""Plain decoding first: the others are compared with it."""


class Watcher(Protocol):
    """Who is told of every round, and of every method that is done."""

    def tell(self, method: str, response: GenerationResponse, /) -> None: ...

    def finish(self, method: str, identical: bool, /) -> None: ...


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

    def row(self) -> dict[str, str]:
        """This method's line in a table."""
        return {
            "method": self.method,
            "tokens": str(len(self.tokens)),
            "rounds": str(self.rounds),
            "tok/s": f"{self.generation_tps:.1f}",
            "acceptance length": f"{self.acceptance_length:.2f}",
            "speedup": f"{self.speedup:.2f}x",
            "identical tokens": "yes" if self.identical else "NO",
        }


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` has found; `print` it, `.plot()` it, or let a notebook show it.

    results: one a method, plain decoding first.
    """

    results: list[MethodResult]

    @property
    def text(self) -> str:
        """Plain decoding's answer, which the others repeat where they are identical."""
        return self.results[0].text

    def rows(self) -> Table:
        return [result.row() for result in self.results]

    def plot(self) -> Picture:
        """Tokens a second of every method, as bars."""
        fastest = max(self.results, key=lambda result: result.generation_tps)
        bars = []
        for result in self.results:
            kind = "plain" if result.method == "ar" else "best" if result is fastest else "ours"
            same = "the tokens of plain decoding" if result.identical else "OTHER tokens than plain decoding"
            about = f"{result.method}: {len(result.tokens)} tokens in {result.rounds} rounds, {same}"
            text = f"{result.generation_tps:.0f}, {result.speedup:.2f}x" + (
                "" if result.identical else ", NOT IDENTICAL"
            )
            bars.append(Bar(result.method, result.generation_tps, text, about, kind))
        hint = "Point at a bar: its tokens and rounds."
        title = f"One prompt, {len(self.results[0].tokens)} tokens, by every method"
        return Picture(bars_svg(bars, title, "tokens a second"), title, hint)

    def __str__(self) -> str:
        return table_text(self.rows())

    def __repr__(self) -> str:
        return f"Comparison({', '.join(f'{result.method} {result.speedup:.2f}x' for result in self.results)})"

    def _repr_html_(self) -> str:
        return rows_table(self.rows())


def compare(
    pair: Pair,
    prompt: Prompt,
    max_tokens: int | None = None,
    *,
    options: GenerationOptions | None = None,
    watcher: Watcher | None = None,
    **changes: Any,
) -> Comparison:
    """Decode one prompt by ar, dflash and ddtree, each after a short warm-up, and set them side by side.

    prompt, max_tokens, options, changes: as for `stream_generate`, without `method`.
    watcher: is told what happens, as it happens.

    All methods draw with the same seed.  One prompt is an anecdote: `benchmark` measures many.
    """
    how = options_of(options, max_tokens, changes)
    if how.seed is None and how.sampler is None:
        how = how.changed(seed=randbits(31))
    ids = prompt_token_ids(pair, prompt)
    results: list[MethodResult] = []
    for method in RUNNING_ORDER:
        asked = how.changed(method=method)
        for _ in stream_generate(pair, ids, WARM_UP_TOKENS, options=asked):
            pass
        responses = []
        for response in stream_generate(pair, ids, options=asked):
            responses.append(response)
            if watcher is not None:
                watcher.tell(method, response)
        results.append(result_of(method, responses, results[0] if results else None))
        if watcher is not None:
            watcher.finish(method, results[-1].identical)
    return Comparison(results)


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
