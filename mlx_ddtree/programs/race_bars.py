"""The methods of --compare as bars that grow: first as tokens come, in the end by their speed."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from rich.box import ROUNDED
from rich.table import Table
from rich.text import Text

from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.terminal import make_console, make_live

WIDTH = 30
"""Characters of the longest bar."""
SECONDS_BETWEEN = 0.12
"""Between two drawings, so that drawing takes no time that counts."""
USUAL_LENGTH = 512
"""Tokens of an answer without a limit, for bars."""
WAITING, RUNNING, DONE = "ui.muted", "bold blue", "blue"


@dataclass
class Runner:
    """One method, as far as it has come.

    identical: whether its tokens are plain decoding's; None until it is done.
    """

    tokens: int = 0
    tps: float = 0.0
    a_round: float = 0.0
    identical: bool | None = None


class RaceBars:
    """A context manager.

    methods: in the order in which they run; speedups are against the first.
    most: tokens of an answer, at most; -1: nobody knows.
    """

    def __init__(self, methods: list[str], most: int) -> None:
        self._runners = {method: Runner() for method in methods}
        self._most = most if most > 0 else USUAL_LENGTH
        self._live = make_live(make_console())
        self._drawn = 0.0

    def __enter__(self) -> RaceBars:
        self._live.start()
        self._draw()
        return self

    def __exit__(self, *error: object) -> None:
        self._draw()
        self._live.stop()

    def tell(self, method: str, last: GenerationResponse) -> None:
        """A round of this method is done."""
        runner = self._runners[method]
        runner.tokens = last.generation_tokens
        runner.tps = last.generation_tps
        runner.a_round = last.mean_acceptance_length
        if perf_counter() - self._drawn > SECONDS_BETWEEN:
            self._draw()

    def finish(self, method: str, identical: bool) -> None:
        """This method's answer is complete."""
        self._runners[method].identical = identical
        self._draw()

    def _draw(self) -> None:
        self._live.update(self.table(), refresh=True)
        self._drawn = perf_counter()

    def table(self) -> Table:
        """How they stand."""
        table = Table(box=ROUNDED, border_style="ui.border", header_style="ui.heading")
        for name in ("method", "", "tokens", "tok/s", "a round", "speedup", "identical"):
            table.add_column(name, justify="left" if name in ("method", "") else "right")
        plain = next(iter(self._runners.values()))
        for method, runner in self._runners.items():
            figures = ["", "", "", "", ""]
            if runner.tokens:
                speedup = f"{runner.tps / plain.tps:.2f}x" if plain.tps else ""
                same = {None: "", True: "yes", False: "NO"}[runner.identical]
                figures = [str(runner.tokens), f"{runner.tps:.0f}", f"{runner.a_round:.1f}", speedup, same]
            table.add_row(Text(method, style="ui.strong"), self._bar(runner), *figures)
        return table

    def _bar(self, runner: Runner) -> Text:
        """Tokens of those that may come while methods run; speed against the fastest once all are done."""
        finished = all(other.identical is not None for other in self._runners.values())
        if finished:
            share = runner.tps / max(other.tps for other in self._runners.values())
        else:
            share = 1.0 if runner.identical is not None else min(runner.tokens / self._most, 1.0)
        filled = max(round(share * WIDTH), 1 if runner.tokens else 0)
        style = DONE if runner.identical is not None else RUNNING
        return Text.assemble(("█" * filled, style), ("░" * (WIDTH - filled), WAITING))
