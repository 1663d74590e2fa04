"""Which kernels verifications use on this machine: those that agree with MLX's operations and make rounds faster.

1. Every variant is checked on the arrays of the loaded model (tuning/agree.py).
2. Every kernel is timed alone on those arrays: products by the shape of their weights, attention also behind a long
   context.
3. What won is timed in company, in whole verifications with the commit that follows: kernels that win alone can lose
   there.

All that is found goes into the pair's timings by name, so an interrupted choice goes on where it ended.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import mlx.core as mx

from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.choice import MLX
from mlx_ddtree.kernels.guard import Guard, warn_of_failure
from mlx_ddtree.kernels.metal import Launch, launch_on_metal
from mlx_ddtree.kernels.registry import ATTENTION, DRAFT, Option, attention_from, options, set_of
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.agree import CHECKED, Agreement, Examined, checked_rows, examine, verification_and_commit
from mlx_ddtree.tuning.alone import LONG_CONTEXT, longer, seconds_of
from mlx_ddtree.tuning.candidates import choose_top_k
from mlx_ddtree.tuning.finding import FASTER, WRONG, Finding
from mlx_ddtree.tuning.rounds import filled, timed
from mlx_ddtree.tuning.timings import Timings

MODES = ("auto", "on", "off")
SIZES = (4, 8, 16, 32)
"""Rows that are timed; a verification uses what was chosen for the next larger one."""
CONTEXT = 1024
"""Tokens behind which kernels are checked and timed."""
CROSSOVER = 4096
"""Tokens of context from which attention is used that wins behind a long one only: between both that were timed."""


def mode_of(asked: str) -> str:
    """'auto', 'on' or 'off': $MLX_DDTREE_KERNELS overrules what was asked for.  Raises OptionError."""
    mode = os.environ.get("MLX_DDTREE_KERNELS", "").lower() or asked
    if mode not in MODES:
        raise OptionError(f"kernels={mode!r} is unknown; choose one of {', '.join(MODES)}")
    if mode == "on" and not mx.metal.is_available():
        raise OptionError("kernels='on' needs Metal, which this machine's MLX does not have; 'auto' does without")
    return mode if mx.metal.is_available() else "off"


def choose_kernels(
    pair: Pair, mode: str = "auto", launch: Launch = launch_on_metal, timings: Timings | None = None
) -> tuple[dict[int, list[str]], list[Finding]]:
    """Names of kernels by number of rows (kernels/registry.py), and what was found of each.

    mode: 'auto' takes those that agree and are faster, 'on' all that agree.

    Raises OutOfTime where the timings' time does not suffice.
    """
    return _Choosing(pair, mode, launch, timings or Timings(None)).choose()


def expected_numbers(mode: str) -> int:
    """About how many numbers the choice measures."""
    each = {"off": 0, "on": 5, "auto": 12}[mode]
    return each * len(CHECKED)


class _Choosing:
    """One pair's choice, in steps that are each remembered by name."""

    def __init__(self, pair: Pair, mode: str, launch: Launch, timings: Timings) -> None:
        self.pair = pair
        self.mode = mode
        self.launch = launch
        self.known = timings
        self.options = options(launch)
        self.findings = {option.name: Finding(option.name) for option in self.options}
        limit = pair.target.max_context
        self.context = min(CONTEXT, (limit or 2 * CONTEXT) // 2)
        self.fits = [n for n in checked_rows(_group(pair)) if limit is None or self.context + n < limit]

    @cached_property
    def state(self) -> DecodeState:
        """A state behind a context, with caches of its own."""
        return filled(self.pair, self.context)

    def choose(self) -> tuple[dict[int, list[str]], list[Finding]]:
        for rows in self.fits:
            self._check(rows)
        together = Finding("together", None, True)
        sizes = [rows for rows in self.fits if rows in SIZES]
        chosen = {rows: self._in_company(rows, self._winners(rows), together) for rows in sizes}
        wrong = {name for name, finding in self.findings.items() if not finding.agrees}
        for rows in sizes:  # also the sizes that were decided before a kernel failed at a larger one
            chosen[rows] = [name for name in chosen[rows] if name.partition("@")[0] not in wrong]
        chosen[DRAFT], top_k = choose_top_k(self.pair, self.mode, self.launch, self.known)
        return chosen, [*self.findings.values(), top_k, *([together] if together.speedup else [])]

    # Checking, and timing alone

    def _check(self, rows: int) -> None:
        """See whether every kernel agrees at so many rows, and time it alone if these rows are timed."""
        done = f"kernels at {rows} rows"
        if done not in self.known.seconds:
            self.known.need_time()
            usable = [option for option in self.options if not self._is_wrong(option.name)]
            found = _without_failing(self.state, usable, rows)
            for name, agreement in found.agreements.items():
                self._note_agreement(name, rows, agreement)
            if rows in SIZES and self.mode == "auto":
                self._time_alone(rows, found)
            self.known.note(done, 1.0)
        for name, finding in self.findings.items():
            self._take_in(finding, self.known.seconds.get(f"error of {name} at {rows} rows"))

    def _note_agreement(self, name: str, rows: int, agreement: Agreement) -> None:
        error = agreement.error if agreement.agrees else WRONG
        if agreement.failure is not None:
            warn_of_failure(name, agreement.failure)
        elif not agreement.agrees:
            self.findings[name].error = agreement.error
            logging.getLogger(__name__).warning(
                "kernel %s disagrees with MLX's operations at %d rows here (relative error %.2g) and is not used; "
                "please report what `mlx_ddtree.doctor --json` says",
                *(name, rows, agreement.error),
            )
        self.known.note(f"error of {name} at {rows} rows", error)

    def _take_in(self, finding: Finding, error: float | None) -> None:
        if error is None:
            return
        if error >= WRONG:
            finding.agrees = False
        elif not self._is_wrong(finding.name):
            finding.error = max(error, finding.error or 0.0)
            finding.agrees = True

    def _is_wrong(self, name: str) -> bool:
        of_name = [self.known.seconds.get(f"error of {name} at {rows} rows", 0.0) for rows in self.fits]
        return max(of_name, default=0.0) >= WRONG

    def _time_alone(self, rows: int, found: Examined) -> None:
        """Seconds of all calls of a kernel and of its reference in one verification, by part."""
        for name, calls in found.calls.items():
            if not found.agreements[name].agrees:
                continue
            for part in sorted({call.part for call, _ in calls.values()}):
                of_part = [(call, times) for call, times in calls.values() if call.part == part]
                self._note_seconds(name, f"{name}@{part}" if part else name, rows, of_part)
            if name == ATTENTION:
                long = [(longer(call, self.pair.target.max_context), times) for call, times in calls.values()]
                behind = [(call, times) for call, times in long if call is not None]
                if behind:
                    self._note_seconds(name, f"{name}@{LONG_CONTEXT}", rows, behind)

    def _note_seconds(self, name: str, part: str, rows: int, calls: Sequence[tuple[Any, int]]) -> None:
        try:
            seconds = seconds_of(calls)
        except Exception as error:
            warn_of_failure(name, error)
            self.known.note(f"error of {name} at {rows} rows", WRONG)
            return
        for side, taken in seconds.items():
            self.known.note(f"{part} at {rows} rows by {side}", min(taken, WRONG))

    # Choosing

    def _winners(self, rows: int) -> list[str]:
        """Kernels, or the parts of their calls, that win alone."""
        names = []
        for option in self.options:
            finding = self.findings[option.name]
            if finding.agrees:
                names += self._parts(option.name, rows, finding) if self.mode == "auto" else [option.name]
        return names

    def _parts(self, name: str, rows: int, finding: Finding) -> list[str]:
        ratios = self._ratios(name, rows)
        won = [part for part, (ours, mlx) in ratios.items() if ours <= FASTER * mlx]
        if not ratios:
            return []
        here = [ratios[part] for part in won or ratios]
        finding.speedup[rows] = sum(mlx for _, mlx in here) / sum(ours for ours, _ in here)
        if name != ATTENTION:
            return won
        long = f"{name}@{LONG_CONTEXT}"
        if long in ratios and long not in won:
            return []
        return [name] if name in won else [attention_from(CROSSOVER)] if long in won else []

    def _ratios(self, name: str, rows: int) -> dict[str, tuple[float, float]]:
        """Seconds by the kernel and by MLX, by part."""
        ending = f" at {rows} rows by kernel"
        found = {}
        for known, ours in self.known.seconds.items():
            part = known.removesuffix(ending)
            if part != known and part.partition("@")[0] == name:
                found[part] = (ours, self.known.seconds[f"{part} at {rows} rows by MLX"])
        return found

    def _in_company(self, rows: int, names: list[str], together: Finding) -> list[str]:
        """The names whose kernels make whole verifications faster: all, or those that do one after the other."""
        if self.mode == "on" or not names:
            return names
        mlx = self._whole(rows, [])
        seconds = self._whole(rows, names)
        if seconds > FASTER * mlx:
            names, seconds = self._one_by_one(rows, names, mlx)
        if names:
            together.speedup[rows] = mlx / seconds
        return names

    def _one_by_one(self, rows: int, names: list[str], best: float) -> tuple[list[str], float]:
        kept: list[str] = []
        for kernel in dict.fromkeys(name.partition("@")[0] for name in names):
            tried = [*kept, *(name for name in names if name.partition("@")[0] == kernel)]
            seconds = self._whole(rows, tried)
            if seconds <= FASTER * best:
                kept, best = tried, seconds
        return kept, best

    def _whole(self, rows: int, names: Sequence[str]) -> float:
        """Seconds of a verification and commit with these kernels."""
        guard = Guard()
        kernels = set_of(names, self.options, guard)

        def measure() -> float:
            taken = timed(partial(verification_and_commit, self.state, rows, kernels))
            for name in guard.failed:
                self.known.note(f"error of {name} at {rows} rows", WRONG)
                self.findings[name].agrees = False
            return taken

        return self.known.of(f"verification of {rows} rows by {', '.join(names) or 'MLX'}", measure)


def _without_failing(state: DecodeState, options: Sequence[Option], rows: int) -> Examined:
    """An examination of so many rows.

    Should it not come to its end although each call is guarded, every kernel is examined alone, and those with which it
    does not end are at fault.  Raises what MLX's operations raise by themselves.
    """
    try:
        return examine(state, options, rows)
    except Exception:
        verification_and_commit(state, rows, MLX)
    found = Examined()
    for option in options:
        try:
            one = examine(state, [option], rows)
            found.agreements |= one.agreements
            found.calls |= one.calls
        except Exception as error:
            found.agreements[option.name] = Agreement(failure=error)
    return found


def _group(pair: Pair) -> int:
    """Query heads to a KV head; 1 where the model does not say."""
    args = pair.target.args
    heads, kv_heads = getattr(args, "num_attention_heads", 1), getattr(args, "num_key_value_heads", None)
    return max(heads // kv_heads, 1) if isinstance(kv_heads, int) and kv_heads else 1
