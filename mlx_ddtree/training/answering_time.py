"""The clock of the target's answering: when it ends, and how fast it goes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mlx_ddtree.terminal_bar import Bar

LEAST_ANSWERS = 2
"""Sequences that a run cannot do without: one to train on, one to validate with.  They are waited for."""
TIMED_SECONDS = 10.0
TIMED_STEPS = 8
"""After so many seconds and tokens of each row, the pace says something about the rest."""


@dataclass(frozen=True)
class AnswerPace:
    """How far the answering has come.

    there: sequences that needed no answer of this session.  missing: prompts that did.
    seconds: since it began.  tokens: said in them.  finished: answers that are whole.
    """

    there: int
    missing: int = 0
    seconds: float = 0.0
    tokens: int = 0
    finished: int = 0

    def answers_a_second(self, max_tokens: int) -> float:
        """Answers of at most `max_tokens` a second, 0 where nothing was measured.

        An answer's mean length is estimated as if it ended behind every token with one probability, that of the tokens
        so far: then answers that are still being written count as well.
        """
        if not self.tokens or self.seconds <= 0:
            return 0.0
        length = float(max_tokens)
        if self.finished:
            mean = self.tokens / self.finished
            length = mean * (1 - math.exp(-max_tokens / mean))
        return self.tokens / self.seconds / length


class AnsweringTime:
    """Ends the answering after `most_seconds`, or when `stop` is set, and reports its pace once.

    clock: gives seconds.
    report: is called once, a few seconds after the beginning, or at the end if that comes first.
    """

    def __init__(
        self,
        most_seconds: float = math.inf,
        stop: threading.Event | None = None,
        report: Callable[[AnswerPace], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most_seconds = most_seconds
        self.stop = stop or threading.Event()
        self.report = report
        self.clock = clock
        self.begin(there=0, missing=0)

    def begin(self, there: int, missing: int, bar: Bar | None = None) -> None:
        """Start the clock.  bar: shows what is counted."""
        self.there = there
        self.missing = missing
        self.bar = bar
        self.tokens = 0
        self.steps = 0
        self.finished = 0
        self.usable = 0
        self.began = self.clock()

    @property
    def pace(self) -> AnswerPace:
        """How far the answering has come by now."""
        return AnswerPace(self.there, self.missing, self.clock() - self.began, self.tokens, self.finished)

    def is_over(self, share: float = 1.0) -> bool:
        """Whether a `share` of the seconds is used up, or the user wants to stop."""
        if self.stop.is_set():
            return True
        enough = self.there + self.usable >= LEAST_ANSWERS
        return enough and self.clock() - self.began >= share * self.most_seconds

    def count_step(self, tokens: int) -> None:
        """Count the tokens of one forward of the target."""
        self.tokens += tokens
        self.steps += 1
        pace = self.pace
        if self.bar is not None:
            left = self.most_seconds - pace.seconds
            end = f", ends in {max(0.0, left) / 60:.1f} minutes" if math.isfinite(left) else ""
            self.bar.note = f"{self.tokens / max(pace.seconds, 1e-9):.0f} tok/s{end}"
            self.bar.advance(0)
        if self.steps >= TIMED_STEPS and pace.seconds >= TIMED_SECONDS:
            self._report_once(pace)

    def count_answer(self, is_usable: bool = True) -> None:
        """Count a whole answer."""
        self.finished += 1
        self.usable += is_usable
        if self.bar is not None:
            self.bar.advance()

    def end(self) -> None:
        """Report the pace if that has not been done, unless the user wants to stop; no more answers will come."""
        if not self.stop.is_set():
            self._report_once(replace(self.pace, missing=self.finished))

    def _report_once(self, pace: AnswerPace) -> None:
        report, self.report = self.report, None
        if report is not None:
            report(pace)
