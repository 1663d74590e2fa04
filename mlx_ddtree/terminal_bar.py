"""How far something is: a bar in mlx-lm's style at a terminal; elsewhere lines that a log can hold, or nothing."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Any, TextIO

from mlx_ddtree.terminal import make_console, redirections

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal: a log that can be read, and that shows within a minute that all is
well."""
LONG_PROMPT = 4096
"""Tokens of a prompt that one waits for."""


class Bar:
    """A context manager; steps are counted with `advance` and `reach`.

    total, done: steps in all (0: nobody knows) and so far; seconds where `unit` is 's'.
    note: what is said behind the figures; changed by assigning.
    shown: False says nothing at all.
    stays: whether it is left on the terminal when it ends.
    line_seconds: between two lines where there is no terminal; None writes none there.
    stream: standard error by default.
    """

    def __init__(
        self,
        title: str,
        total: float,
        done: float = 0,
        unit: str = "",
        *,
        shown: bool = True,
        stays: bool = False,
        line_seconds: float | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self.title = title
        self.total = total
        self.done = done
        self.unit = unit
        self.note = ""
        self.stays = stays
        self.line_seconds = line_seconds
        self.stream = stream or sys.stderr
        self.shown = shown
        self._drawn: Any = None
        self._written: tuple[float, float] | None = None  # when a line was written, and what was done then

    def __enter__(self) -> Bar:
        if self.shown and self.stream.isatty():
            self._drawn = self._draw()
            self._drawn.start()
        self._tell()
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawn is not None:
            self._drawn.stop()
        elif self._written is not None and self._written[1] != self.done:
            self._write()

    def advance(self, steps: float = 1) -> None:
        """Count further steps."""
        self.reach(self.done + steps)

    def reach(self, done: float) -> None:
        """Say how many steps are done by now, and that the note may be another."""
        self.done = min(done, self.total) if self.total else done
        self._tell()

    def _tell(self) -> None:
        if self._drawn is not None:
            self._drawn.update(0, completed=self.done, figures=self.figures(), note=self.note)
        elif self._is_time_for_a_line():
            self._write()

    def _is_time_for_a_line(self) -> bool:
        if not self.shown or self.line_seconds is None:
            return False
        return self._written is None or monotonic() - self._written[0] >= self.line_seconds

    def _write(self) -> None:
        """A line for a log."""
        share = self.done / self.total if self.total else 0.0
        note = f", {self.note}" if self.note else ""
        self.stream.write(f"{self.title}: {share:4.0%} {self.figures()}{note}\n")
        self.stream.flush()
        self._written = monotonic(), self.done

    def figures(self) -> str:
        """What is done of all."""
        if not self.total:
            return f"{self.done:,.0f} {self.unit}"
        if self.unit == "s":
            return f"{self.done / 60:.1f}/{self.total / 60:.1f} minutes"
        return f"{self.done:,.0f}/{self.total:,.0f} {self.unit}".rstrip()

    def _draw(self) -> Any:
        """rich's progress with one task, number 0."""
        from mlx_lm.cli_ui import SquareBar  # noqa: PLC0415  (brings MLX)
        from rich.progress import Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        columns = [
            TextColumn("[bold blue]{task.description}"),
            SquareBar(bar_width=30),
            TextColumn("[progress.percentage]{task.percentage:>3.0f}%"),
            TextColumn("[bold blue]{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("[ui.muted]{task.fields[note]}"),
        ]
        progress = Progress(*columns, console=make_console(self.stream), transient=not self.stays, **redirections())
        task = progress.add_task(self.title, total=self.total or None, figures=self.figures(), note="")
        progress.update(task, completed=self.done)
        return progress


class PromptBar:
    """A context manager, and a callback for prefill: a bar at a terminal, for prompts long enough to wait for.

    shown: False says nothing.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._bar: Bar | None = None

    def __enter__(self) -> PromptBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)
            self._bar = None

    def __call__(self, done: int, total: int) -> None:
        """So many tokens of so many are processed."""
        if not self._shown or total < LONG_PROMPT:
            return
        if self._bar is None:
            self._bar = Bar("prefill", total, unit="tokens").__enter__()
        self._bar.reach(done)
        if done >= total:  # the answer begins
            self.__exit__()
