"""What a round costs on this machine: measured seconds, kept as the staircase they are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mlx_ddtree.budget import saved as saved_numbers
from mlx_ddtree.budget.corrections import MOST, RATE, Corrections
from mlx_ddtree.budget.pace import Pace

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128)
"""Rows of a verification (nodes and root) that are measured and used; the curve jumps between
4 and 16 on Apple GPUs, and again behind 32 and 64."""
MOST_KEPT = 8
"""Lengths of context whose seconds are kept at hand: a round asks for one several times."""
MOST_OFF = 8.0
"""No guess is off by more; what seems so was disturbed."""
_SAVED = ("rows", "contexts", "verify", "chain", "plain", "draft", "round", "unread", "guessed")
"""What a table's file keeps."""


@dataclass
class CostTable:
    """Seconds of a verification by rows and context length, and of a draft by block size.

    rows: measured numbers of rows, ascending, the first is 1 (plain decoding).
    contexts: measured context lengths, ascending.
    verify: seconds of a bushy tree, [context][rows].
    chain: the same for a tree without branches, which takes the plain causal path.
    plain: seconds of a step of plain decoding, [context]; it runs ahead of the host, so it can be
        cheaper than a verification of one row.
    draft: seconds by block size; empty without a drafter.
    round: seconds of a round that are neither (tree, walk, commit, text).
    unread: seconds of a draft and the verification of its chain where the host reads nothing in between, as a share of
        what both take by themselves.
    guessed: rows of which nothing was measured yet; the first round of such a size says what it takes.
    pace: how fast the machine is at present; all seconds here are those of its usual pace.  Not saved.
    steps_timed: steps of plain decoding that were timed in this process, since the pace last changed without one; not
        saved.

    What the rounds of this process say of `verify` and `chain`, of `draft` and of `unread` stands beside them as
    factors (corrections.py), and is part of them in the table's file.
    """

    rows: list[int]
    contexts: list[int]
    verify: list[list[float]]
    chain: list[list[float]]
    plain: list[float]
    draft: dict[int, float]
    round: float = 0.0
    unread: float = 1.0
    guessed: list[int] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace, repr=False, compare=False)
    steps_timed: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        # Guesses are corrected in place, and drafts are read in order: nobody else's lists, and in no other one.
        self.verify = [[*of_rows] for of_rows in self.verify]
        self.chain = [[*of_rows] for of_rows in self.chain]
        self.draft = dict(sorted(self.draft.items()))
        blocks = list(self.draft)
        self._of_rows = Corrections(self.rows)
        self._of_drafts = Corrections(blocks)
        self._of_unread = Corrections(blocks)
        self._verifications: dict[tuple[int, bool], list[float]] = {}
        self._step: tuple[int, float] | None = None  # a context, and the seconds of a step there
        self._drafts: dict[int, float] | None = None

    def verification(self, context: int, chain: bool = False) -> list[float]:
        """Seconds by `rows` at this context length."""
        known = self._verifications.get((context, chain))
        if known is None:
            measured = _between(context, self.contexts, self.chain if chain else self.verify)
            known = self._of_rows.applied(measured)
            if len(self._verifications) > MOST_KEPT:
                self._verifications.clear()
            self._verifications[context, chain] = known
        return known

    def verifying(self, place: int, context: int, chain: bool = False) -> float:
        """Seconds of the size that stands at this place of `rows`."""
        return self.verification(context, chain)[place]

    def step(self, context: int) -> float:
        """Seconds of a token by plain decoding."""
        if self._step is None or self._step[0] != context:
            (seconds,) = _between(context, self.contexts, [[seconds] for seconds in self.plain])
            self._step = context, seconds
        return self._step[1]

    def drafts(self) -> dict[int, float]:
        """Seconds of a draft by measured block size, ascending."""
        if self._drafts is None:
            blocks = self._of_drafts.sizes
            taken = self._of_drafts.applied([self.draft[block] for block in blocks])
            self._drafts = dict(zip(blocks, taken, strict=True))
        return self._drafts

    def drafting(self, block_size: int) -> float:
        """Seconds of a draft, straight lines between the measured blocks; none without a drafter."""
        return _interpolated(self.drafts(), block_size)

    def line(self) -> str:
        """The milliseconds of a token, of verifying some rows and of a draft, at the shortest measured context."""
        first = self.contexts[0]
        figures = [f"a token {1e3 * self.step(first):.1f} ms"]
        for rows in (8, 32):
            if rows in self.rows and rows not in self.guessed:
                figures.append(f"{rows} rows {1e3 * self.verifying(self.rows.index(rows), first):.1f} ms")
        if self.draft:
            figures.append(f"a draft {1e3 * self.drafting(max(self.draft)):.1f} ms")
        return ", ".join(figures)

    def saw_verification(self, rows: int, context: int, seconds: float, chain: bool = False) -> None:
        """Refine by a round's own timing, padded to the next measured size.  Rare long ones (another
        program, a page fault) count little."""
        place = bisect_left(self.rows, rows)
        if place >= len(self.rows):
            return
        size = self.rows[place]
        expected = self.verifying(place, context, chain)
        if size in self.guessed:
            self._measured(size, seconds / expected)
            return
        measured = _between(context, self.contexts, self.chain if chain else self.verify)[place]
        self._of_rows.refine(size, expected / measured, seconds / expected)
        self._verifications.clear()
        step = self.step(context)
        if seconds < step:  # a step of plain decoding cannot take longer
            self._refine_plain(seconds / step, 0.5)

    def saw_round(self, seconds: float, promised: float) -> float:
        """Follow the machine's pace by a whole round; by what its timings are to be divided."""
        self.pace.saw(seconds / promised)
        if self.pace.moved:
            self.steps_timed = 0
        return self.pace.factor

    def saw_step(self, context: int, seconds: float) -> None:
        """Refine `plain`."""
        ratio = seconds / self.step(context)
        self.pace.saw_step(ratio)
        self._refine_plain(ratio / self.pace.factor)
        self.steps_timed += 1

    def saw_draft(self, block_size: int, seconds: float) -> None:
        """Refine `draft` by a round's own timing of a measured block."""
        if block_size in self.draft:
            expected = self.drafting(block_size)
            self._of_drafts.refine(block_size, expected / self.draft[block_size], seconds / expected)
            self._drafts = None

    def unread_chain(self, block_size: int, context: int) -> float:
        """Seconds of a draft and the verification of its chain, one behind the other on the device."""
        return self.unread_chains([block_size], context)[0]

    def unread_chains(self, block_sizes: Sequence[int], context: int) -> list[float]:
        """(len(block_sizes),) seconds of each, as `unread_chain` has them."""
        by_rows = _between(context, self.contexts, self.chain)  # without corrections, which are of rounds that read
        taken = []
        for size in block_sizes:
            apart = _interpolated(self.draft, size) + by_rows[bisect_left(self.rows, size)]
            taken.append(self.unread * self._of_unread.factor(size) * apart)
        return taken

    def saw_unread(self, block_size: int, context: int, seconds: float) -> None:
        """Refine what chains take unread by a round's own timing of its draft and verification.

        A process's first ones count most: what one moment of another process said is seldom in use long enough to heal.
        """
        expected = self.unread_chain(block_size, context)
        factor = self._of_unread.factor(block_size)
        self._of_unread.refine(block_size, factor, seconds / expected, quickly=True)

    def saw_rest(self, seconds: float) -> None:
        """Refine `round` by what a round took beside its draft and its verification; never below no time at all."""
        seconds = max(seconds, 0.0)
        if self.round > 0:
            seconds = min(seconds, 2 * self.round)
        self.round += RATE * (seconds - self.round)

    def _measured(self, size: int, ratio: float) -> None:
        """What a guess was off by; larger guesses were made the same way."""
        factor = min(max(ratio, 1 / MOST_OFF), MOST_OFF)
        for rows in self.guessed:
            if rows >= size:
                place = self.rows.index(rows)
                for of_rows in (*self.verify, *self.chain):
                    of_rows[place] *= factor
        self.guessed.remove(size)
        self._verifications.clear()

    def _refine_plain(self, ratio: float, weight: float = RATE) -> None:
        """Move what steps of plain decoding take towards what a timing says."""
        change = 1 + weight * (min(ratio, MOST) - 1)
        self.plain = [seconds * change for seconds in self.plain]
        self._step = None

    def become(self, other: CostTable) -> None:
        """Take over all of another table; whoever holds this one has the new numbers."""
        for name, value in vars(other).items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        """The table as JSON has it, with what rounds said of it, in seconds of the machine's present pace."""
        pace = self.pace.factor
        saved = {name: value for name, value in asdict(self).items() if name in _SAVED}
        for name in ("verify", "chain"):
            saved[name] = [[seconds * pace for seconds in self._of_rows.applied(row)] for row in saved[name]]
        saved["plain"] = [seconds * pace for seconds in self.plain]
        saved["draft"] = {str(block): seconds * pace for block, seconds in self.drafts().items()}
        saved["round"] *= pace
        if self._of_unread.any_used:
            saved["unread"] *= float(np.mean(self._of_unread.factors))
        return saved

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> CostTable:
        """Raises KeyError, TypeError or ValueError if `saved` is not what `as_dict` gives."""
        rows = saved_numbers.ascending(saved["rows"])
        contexts = saved_numbers.ascending(saved["contexts"])
        if rows[0] != 1 or not set(rows) <= set(ROWS):
            raise ValueError("a cost table of sizes that are not measured")
        draft = {int(block): saved_numbers.positive(t) for block, t in saved_numbers.table(saved["draft"]).items()}
        if min(draft, default=1) < 1:
            raise ValueError("a cost table with blocks of nothing")
        verify = saved_numbers.counts(saved["verify"])
        chain = saved_numbers.counts(saved["chain"])
        plain = saved_numbers.counts(saved["plain"])
        of_rows = (len(contexts), len(rows))
        if verify.shape != of_rows or chain.shape != of_rows or plain.shape != (len(contexts),):
            raise ValueError("a cost table with missing entries")
        if min(verify.min(), chain.min(), plain.min()) <= 0:
            raise ValueError("a cost table in which something takes no time")
        rest = saved_numbers.number(saved["round"])
        if rest < 0:
            raise ValueError("a cost table in which a round's rest takes less than no time")
        unread = saved_numbers.positive(saved["unread"])
        guessed = [saved_numbers.integer(n) for n in saved_numbers.items(saved["guessed"])]
        if not set(guessed) <= set(rows):
            raise ValueError("guesses of sizes that are not in the table")
        return cls(rows, contexts, verify.tolist(), chain.tolist(), plain.tolist(), draft, rest, unread, guessed)


def _between(x: float, places: Sequence[int], values: Sequence[Sequence[float]]) -> Sequence[float]:
    """Values by place, each of them several numbers, at x on the straight lines through the two places next to it.

    Attention over the context grows linearly, so the last line goes on.  Python's numbers: so few of them are
    faster than arrays, and this is asked several times a round.
    """
    if len(places) == 1:
        return values[0]
    right = min(max(bisect_left(places, x), 1), len(places) - 1)
    share = (max(x, places[0]) - places[right - 1]) / (places[right] - places[right - 1])
    highs = [min(column) for column in zip(*values[right:], strict=True)]
    lows = map(min, values[right - 1], highs)  # what costs more than over more context was disturbed
    return [low + (high - low) * share for low, high in zip(lows, highs, strict=True)]


def _interpolated(seconds: Mapping[int, float], size: int) -> float:
    """Seconds of a size, on straight lines between those that are given, ascending; 0 if none are."""
    if not seconds:
        return 0.0
    if size in seconds:
        return seconds[size]
    return float(np.interp(size, list(seconds), list(seconds.values())))


def never_falling(seconds: Sequence[float]) -> list[float]:
    """Seconds by ascending sizes, none above a larger size's: more rows cost no less, so what says so was disturbed."""
    least = np.minimum.accumulate(np.array(seconds)[::-1])[::-1]
    return [float(taken) for taken in least]
