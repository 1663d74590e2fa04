"""benchmark(): a run from Python, kept in memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from mlx_ddtree.benchmarking.bench import Bench, Task
from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.benchmarking.record import RunLine
from mlx_ddtree.benchmarking.report import Table, settings_table
from mlx_ddtree.benchmarking.settings import STOCK, Size, make_settings
from mlx_ddtree.benchmarking.summary import Cell, Summary, fastest, summary_of
from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.machine import describe, machine
from mlx_ddtree.pair import Pair
from mlx_ddtree.pictures.bars_svg import Bar, bars_svg
from mlx_ddtree.pictures.picture import Picture
from mlx_ddtree.pictures.tables import rows_table
from mlx_ddtree.terminal import table_text

DATA = "prompts"
"""What the run calls the prompts that were given."""


@dataclass(frozen=True, repr=False)
class BenchmarkResult:
    """What `benchmark` has measured; `print` it, `.plot()` it, or let a notebook show it.

    summary: the run, as `mlx_ddtree.benchmark` reports it.
    """

    summary: Summary

    @property
    def cells(self) -> list[Cell]:
        """A line's figures for every setting, stock mlx_lm first."""
        return self.summary.cells

    def rows(self) -> Table:
        return settings_table(self.cells)

    def plot(self) -> Picture:
        """Speedups against stock mlx_lm, with their 95 % intervals."""
        best = fastest(self.cells, lambda cell: cell.setting != STOCK)
        bars = []
        for cell in self.cells:
            kind = "plain" if cell.setting in (STOCK, "ar") else "best" if cell is best else "ours"
            interval = ""
            if cell.setting != STOCK and cell.low is not None and cell.high is not None:
                interval = f", 95 % interval {cell.low:.2f} to {cell.high:.2f}"
            about = f"{cell.setting}: {cell.tps:.0f} tokens a second, {cell.tau:.2f} tokens a round{interval}"
            low, high = (cell.low, cell.high) if interval else (None, None)
            bars.append(Bar(cell.setting, cell.speedup, f"{cell.speedup:.2f}x", about, kind, low, high))
        title = f"{self.cells[0].prompts} prompts, {self.cells[0].tokens} tokens"
        hint = "Point at a bar: its tokens a second and a round, and its interval over the prompts."
        return Picture(bars_svg(bars, title, "speedup against stock mlx_lm", mark=1.0), title, hint)

    def _place(self) -> str:
        return describe(self.summary.header["machine"])

    def __str__(self) -> str:
        return f"{self._place()}\n\n{table_text(self.rows())}"

    def __repr__(self) -> str:
        figures = ", ".join(f"{cell.setting} {cell.speedup:.2f}x" for cell in self.cells)
        return f"BenchmarkResult({self.cells[0].prompts} prompts: {figures})"

    def _repr_html_(self) -> str:
        return f'{rows_table(self.rows())}<div style="font-size:12px;opacity:.85">{self._place()}</div>'


def benchmark(
    pair: Pair,
    prompts: Sequence[str | Sequence[str]],
    max_tokens: int = 160,
    *,
    temp: float = 0.0,
    methods: Sequence[str] = ("ar", "dflash", "ddtree"),
    blocks: Sequence[Size] = ("auto",),
    budgets: Sequence[Size] = ("auto",),
    progress: bool = True,
) -> BenchmarkResult:
    """Answer every prompt by stock mlx_lm and by every setting in turns, and say how fast each was.

    prompts: what a user says; several texts are a conversation's turns.
    max_tokens: of an answer.
    methods: of 'ar', 'lookup' (the target without its drafter), 'dflash' and 'ddtree'.
    blocks, budgets: sizes of dflash and ddtree that are measured, 'auto' among them.
    progress: whether a bar on stderr counts the prompts.

    `mlx_ddtree.benchmark` on the command line does the same into a file with which it can go on.

    Raises OptionError, and PromptError for prompts that are none or that do not fit into the model's context.
    """
    if max_tokens < 1 or temp < 0:
        raise OptionError(f"max_tokens is {max_tokens} and temp {temp}: use 1 or more, and 0 or more")
    tasks = [Task(question, temp, 0) for question in questions_of(prompts)]
    settings = make_settings(pair, methods, blocks, budgets)
    bench = Bench(pair, settings, max_tokens)
    bench.warm_up(tasks[0])
    lines: list[RunLine] = []
    for number, task in enumerate(tqdm(tasks, unit="prompt", file=sys.stderr, disable=not progress)):
        answered = bench.answer(task, number)
        if not answered:
            raise PromptError(f"prompt {number} is longer than the model's context")
        lines += answered
    header = {"settings": list(settings), "model": str(pair.notes.get("target", "target")), "max_tokens": max_tokens}
    return BenchmarkResult(summary_of(header | {"cool_down": 0.0, "machine": machine()}, lines))


def questions_of(prompts: Sequence[str | Sequence[str]]) -> list[Question]:
    """Raises PromptError for what is no list of texts, or of lists of texts."""
    given: Any = prompts
    if isinstance(given, str) or not given:
        raise PromptError("prompts is a list of texts, each what a user says; give at least one")
    questions = []
    for index, prompt in enumerate(prompts):
        turns = tuple(prompt) if isinstance(prompt, Sequence) and not isinstance(prompt, str) else (prompt,)
        if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise PromptError(f"prompt {index} is {prompt!r:.60}, not a text or the texts of a conversation's turns")
        questions.append(Question(DATA, index, turns))
    return questions
