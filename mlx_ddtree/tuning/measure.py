"""Measure, once for a pair and a machine, what rounds cost, which kernels win, and how forwards of several rows round.

A first use takes some seconds of it and begins its text; what was not measured by then is guessed (budget/prior.py), or
taken to be wide (tuning/rounding.py), and is measured by later uses, or by a server that has nothing to do.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_lm.generate import wired_limit

from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.files.lock import in_turn
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.kernels.registry import kernel_choice
from mlx_ddtree.pair import Pair
from mlx_ddtree.terminal_bar import Bar
from mlx_ddtree.tuning import rounding, store
from mlx_ddtree.tuning.choose import choose_kernels, expected_numbers, mode_of
from mlx_ddtree.tuning.costs import Costs
from mlx_ddtree.tuning.finding import Finding
from mlx_ddtree.tuning.identity import profile_path
from mlx_ddtree.tuning.reading import ReadingCheck, check_reading, use_reading
from mlx_ddtree.tuning.rounding import parity_bounds, take_parity
from mlx_ddtree.tuning.timings import OutOfTime, Timings

AT_FIRST: float | None = 8.0
"""Seconds of measuring that a text waits for; None: until all is measured."""
LOCK = "measuring.lock"
LONGEST_WAIT = 900.0
"""Seconds to wait for another process that measures, where all is to be measured."""


def profile_of(pair: Pair) -> Profile:
    """The pair's profile: in memory, from disk, or measured now, for AT_FIRST seconds at most (a bar on a terminal).

    What is missing of a profile from disk is measured in the same time.
    """
    if pair.profile is None:
        measure_more(pair, AT_FIRST)
    assert pair.profile is not None
    return pair.profile


def whole_profile_of(pair: Pair) -> Profile:
    """The pair's profile with everything measured, which can take a minute or two for a large model."""
    if pair.profile is None or not pair.profile.complete:
        measure_more(pair, None)
    assert pair.profile is not None
    return pair.profile


def measure_more(pair: Pair, seconds: float | None) -> None:
    """Go on measuring the pair for some seconds, None: to the end; its profile is there, and better, afterwards.

    Where another process measures, of whatever pair, it is waited for in the same time: they would time each other.
    """
    mode = mode_of(pair.kernels)
    path = profile_path(pair, mode)
    known = pair.profile or (store.load(path, pair.block_size) if path else None)
    if known is None or not known.complete:
        known = _in_turn(pair, mode, path, known, seconds)
    pair.profile = known
    if known.reading is None and known.complete:  # it takes as many forwards as a short text
        _check_reading(pair, known)
    if known.reading is not None:
        use_reading(pair, ReadingCheck.from_dict(known.reading))
    pair.target.kernels = kernel_choice(known.kernels)


def _check_reading(pair: Pair, profile: Profile) -> None:
    """Look once whether the drafter's file was read rightly."""
    check = check_reading(pair)
    if check is not None:
        profile.reading = check.as_dict()
        store.save(profile)


def _in_turn(pair: Pair, mode: str, path: Path | None, known: Profile | None, seconds: float | None) -> Profile:
    if path is None:
        return _further(pair, mode, path, known, Timings(None, seconds, known.numbers if known else None))
    waited = []

    def waiting() -> None:
        waited.append(True)
        sys.stderr.write("another process is measuring on this machine; waiting for its end\n")

    with in_turn(path.parent / LOCK, LONGEST_WAIT if seconds is None else seconds, waiting) as mine:
        found = store.load(path, pair.block_size) if waited else None
        if found is not None and found.complete:
            return found
        known = found or known
        left = seconds if mine or seconds is None else 0.0
        timings = Timings(path.with_suffix(".part.json"), left, known.numbers if known else None)
        profile = _further(pair, mode, path, known, timings)
        if mine:
            store.save(profile)
        return profile


def _further(pair: Pair, mode: str, path: Path | None, known: Profile | None, timings: Timings) -> Profile:
    """Measure what is missing, as far as there is time, and make a profile of it all."""
    measuring = _Measuring(pair, mode, timings)
    if known is None:
        sys.stderr.write("measuring this pair on this machine, once: what rounds cost and how they round\n")
    try:
        with wired_limit(pair.target.model):
            measuring.run(quiet=known is not None and known is pair.profile)
    except BaseException:
        timings.keep()
        raise
    if measuring.complete:
        timings.forget()
    else:
        timings.keep()
    return measuring.into(known, path)


class _Measuring:
    """One pair's measuring, in the order of what a text needs first.

    Kernels come before all that depends on them; without Metal there are none.
    """

    def __init__(self, pair: Pair, mode: str, timings: Timings) -> None:
        self.pair = pair
        self.mode = mode
        self.timings = timings
        self.costs = Costs(pair, timings)
        self.kernels: dict[int, list[str]] = {}
        self.findings: list[Finding] = []
        self.complete = False

    def run(self, quiet: bool) -> None:
        """Measure until all is known, or time is up."""
        with Bar("measuring this pair, once", self._expected(), shown=not quiet) as bar:
            self.timings.taken = lambda: bar.reach(len(self.timings.seconds))
            with suppress(OutOfTime):
                self._measure()
                self.complete = True
        self.timings.taken = lambda: None

    def _measure(self) -> None:
        before = self.pair.target.kernels
        try:
            self.pair.target.kernels = NO_KERNELS
            with self.timings.without_limit():
                self.costs.measure_first()
            if self.mode != "off":
                self._choose()
            take_parity(self.pair, self.timings, self.costs.step)
            self.costs.measure()
        finally:
            self.pair.target.kernels = before

    def _choose(self) -> None:
        """Kernels, and then what a text needs first anew, because it costs something else with them."""
        self.kernels, self.findings = choose_kernels(self.pair, self.mode, timings=self.timings)
        if any(self.kernels.values()):
            self.pair.target.kernels = kernel_choice(self.kernels)
            self.costs = Costs(self.pair, self.timings, kernels=True)
            with self.timings.without_limit():
                self.costs.measure_first()

    def into(self, known: Profile | None, path: Path | None) -> Profile:
        """The profile of what was measured; what `known` has learned of drafts and copies is kept."""
        costs = self.costs.table()
        bounds = parity_bounds(self.pair, self.timings)
        if known is None:
            known = Profile(costs, bounds, self.pair.block_size, path)
        costs.round = known.cost.round
        known.cost.become(costs)
        known.parity = bounds
        known.kernels = self.kernels
        known.findings = [asdict(finding) for finding in self.findings]
        share = len(self.timings.seconds) / max(self._expected(), 1)
        known.measured = 1.0 if self.complete else min(share, 0.99)
        known.numbers = {} if self.complete else dict(self.timings.seconds)
        return known

    def _expected(self) -> int:
        """About how many numbers there will be."""
        return expected_numbers(self.mode) + self.costs.expected + rounding.expected_numbers()


def report_of(profile: Profile) -> dict[str, Any]:
    """What decoding knows of a pair on this machine, for JSON."""
    return {
        "profile": str(profile.path),
        "reading": profile.reading,
        "measured": profile.measured,
        "kernels": profile.kernels,
        "findings": profile.findings,
        "parity": profile.parity._asdict(),
        "cost": profile.cost.as_dict(),
    }
