"""What rounds of a pair cost: timings of the very functions that a round calls, the most telling ones first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_ddtree.budget.copies import LONGEST_COPY
from mlx_ddtree.budget.cost import ROWS, CostTable, never_falling
from mlx_ddtree.budget.prior import DRAFT_SHARE, guessed_seconds, machine_class
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning import stopwatch
from mlx_ddtree.tuning.rounds import PLAIN_STEPS, draft_once, filled, measure_unread, plain_step, timed, verify_once
from mlx_ddtree.tuning.timings import OutOfTime, Timings

CONTEXTS = (64, 1024)
BLOCKS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
FIRST_ROWS = (1, 4, 16)
"""Sizes that are timed before all others: what lies between them can be guessed."""
SOME_ROWS = (2, 8, 32)
"""Sizes at which chains, and the longer context, are timed; other sizes differ from bushy trees behind a short one as
these do."""
FEW_STEPS = 4
"""Steps of plain decoding that are timed where one is slow."""
TYPICAL_BLOCK = 8
"""The block of which it is measured what reading a draft costs."""
SUSPICIOUS = 1.25
"""A size that takes so many times what a larger one takes was disturbed, and is timed again."""
SECOND_LOOKS = 3


def measure_costs(pair: Pair, timings: Timings | None = None) -> CostTable:
    """Time the very functions that a round calls, on random text.

    timings: what is known already, and how much time there is; what could not be measured in it is guessed.
    """
    costs = Costs(pair, timings or Timings(None))
    with suppress(OutOfTime):
        costs.measure_first()
        costs.measure()
    return costs.table()


class Costs:
    """The measuring of one pair.

    known: seconds by name, and the time that is left.  kernels: in use; what they compute is timed apart from MLX's.
    contexts: tokens behind which is measured; rows: of verifications that could be measured there.
    """

    def __init__(self, pair: Pair, known: Timings, kernels: bool = False) -> None:
        self.pair = pair
        self.prefix = "with kernels: " if kernels else ""
        self.known = known
        self.block_size = pair.block_size
        limit = pair.target.max_context or max(CONTEXTS) + max(ROWS)
        self.contexts = [n for n in CONTEXTS if n + max(ROWS) <= limit] or [max(limit // 4, 1)]
        self.rows = [n for n in ROWS if n == 1 or n + self.contexts[-1] <= limit]
        self.blocks = sorted({b for b in (*BLOCKS, self.block_size) if 2 <= b <= self.block_size})
        self._states: dict[int, DecodeState] = {}

    @property
    def expected(self) -> int:
        """About how many numbers there will be."""
        return len(self.rows) + len(self.blocks) + 2 * len(SOME_ROWS) + len(self.contexts) + 1

    @property
    def step(self) -> float:
        """Seconds of a step of plain decoding; 0 while it was not timed."""
        return self.known.seconds.get(self._plain_name(0), 0.0)

    def measure_first(self) -> None:
        """What the rest can be guessed from: some sizes, a block, steps of plain decoding.  Raises OutOfTime."""
        self._warm_up()
        for rows in FIRST_ROWS:
            if rows in self.rows:
                self._tree(rows)
        self._plain(0)
        if self.blocks:
            self._draft(self._typical_block())

    def _warm_up(self) -> None:
        """Verify a little: the first seconds of a process are slow, because threads start and clocks rise."""
        if self._name("tree 1", 0) in self.known.seconds:
            return
        for rows in self.rows[:8]:
            start = stopwatch.now()
            verify_once(self._state(0), rows)()
            if stopwatch.now() - start >= stopwatch.SLOW:
                return

    def measure(self) -> None:
        """All that decides anything.  Raises OutOfTime."""
        for rows in self.rows:
            if self._cannot_win():
                break
            self._tree(rows)
        self._look_again()
        for block in self.blocks:
            self._draft(block)
        measured = self._measured()
        for rows in _some_of(measured):
            self._verification(rows, 0, chain=True)
        for place in range(1, len(self.contexts)):
            for rows in _some_of(measured):
                self._verification(rows, place, chain=False)
            self._plain(place)
        if self.blocks:
            self.known.of(f"{self.prefix}unread", lambda: measure_unread(self._state(0), self._typical_block()))

    def table(self) -> CostTable:
        """All costs, those that were not measured guessed from the others."""
        trees = self._trees()
        rows = self.rows[: max(self.rows.index(n) for n in trees) + 1] if self._cannot_win() else self.rows
        plain = self.known.seconds.get(self._plain_name(0))
        if not trees:
            trees = {1: plain or 1.0}
        kind = machine_class(_architecture(), is_quantised(self.pair.target.model))
        tree = np.array(never_falling(guessed_seconds(kind, rows, trees).tolist()))
        chain = tree * self._by_rows(rows, 0, True, lambda n, taken: taken / _at(rows, tree, n), 1.0)
        verify_seconds = [tree]
        chain_seconds = [chain]
        plain_seconds = [plain or float(tree[0])]
        for place in range(1, len(self.contexts)):
            longer = self._by_rows(rows, place, False, lambda n, taken: taken - _at(rows, tree, n), 0.0)
            longer = np.maximum(longer, 0.0)  # attention over more keys
            verify_seconds.append(tree + longer)
            chain_seconds.append(chain + longer)
            guess = plain_seconds[0] + float(longer[0])
            plain_seconds.append(self.known.seconds.get(self._plain_name(place), guess))
        return CostTable(
            list(rows),
            list(self.contexts),
            [never_falling(seconds.tolist()) for seconds in verify_seconds],
            [never_falling(seconds.tolist()) for seconds in chain_seconds],
            plain_seconds,
            self._drafts(plain_seconds[0]),
            unread=self.known.seconds.get(f"{self.prefix}unread", 1.0),
            guessed=sorted(set(rows) - set(trees)),
        )

    # Single timings

    def _name(self, what: str, place: int) -> str:
        return f"{self.prefix}{what} behind {self.contexts[place]}"

    def _plain_name(self, place: int) -> str:
        """The name of plain steps, in which no kernel has a part."""
        return f"plain behind {self.contexts[place]}"

    def _draft_name(self, block: int) -> str:
        return f"{self.prefix}draft {block}"

    def _state(self, place: int) -> DecodeState:
        """A state behind a context; made once."""
        if place not in self._states:
            self._states[place] = filled(self.pair, self.contexts[place])
        return self._states[place]

    def _tree(self, rows: int) -> float:
        return self._verification(rows, 0, chain=False)

    def _verification(self, rows: int, place: int, chain: bool) -> float:
        name = self._name(f"{'chain' if chain else 'tree'} {rows}", place)
        return self.known.of(name, lambda: timed(verify_once(self._state(place), rows, chain)))

    def _draft(self, block: int) -> float:
        return self.known.of(self._draft_name(block), lambda: timed(draft_once(self._state(0), block)))

    def _plain(self, place: int) -> float:
        slow = self._trees().get(1, 0.0) >= stopwatch.SLOW
        steps = FEW_STEPS if slow else PLAIN_STEPS
        return self.known.of(self._plain_name(place), lambda: plain_step(self._state(place), steps))

    def _typical_block(self) -> int:
        return max((b for b in self.blocks if b <= TYPICAL_BLOCK), default=self.blocks[0])

    # What is known

    def _trees(self) -> dict[int, float]:
        """Seconds of bushy trees behind the first context, by rows."""
        names = {n: self._name(f"tree {n}", 0) for n in self.rows}
        return {n: self.known.seconds[name] for n, name in names.items() if name in self.known.seconds}

    def _measured(self) -> list[int]:
        """Rows of the trees that were timed, ascending, up to the largest that can win."""
        return list(self._trees())

    def _cannot_win(self) -> bool:
        trees = self._trees()
        consecutive = [trees[n] for n in self.rows[: len(trees)] if n in trees]
        return cannot_win(consecutive)

    def _look_again(self) -> None:
        """Time sizes again that take much longer than a larger one does; the shorter timing counts."""
        for _ in range(SECOND_LOOKS):
            trees = self._trees()
            least = dict(zip(trees, never_falling(list(trees.values())), strict=True))
            doubtful = [n for n, taken in trees.items() if taken > SUSPICIOUS * least[n]]
            for rows in doubtful:
                self.known.need_time()
                again = timed(verify_once(self._state(0), rows))
                self.known.seconds[self._name(f"tree {rows}", 0)] = min(again, trees[rows])
            if not doubtful:
                return

    def _by_rows(
        self, rows: list[int], place: int, chain: bool, compare: Callable[[int, float], float], without: float
    ) -> Any:
        """(len(rows),) what `compare` says of the sizes that were timed, on straight lines between them."""
        names = {n: self._name(f"{'chain' if chain else 'tree'} {n}", place) for n in rows}
        found = {n: compare(n, self.known.seconds[x]) for n, x in names.items() if x in self.known.seconds}
        if not found:
            return np.full(len(rows), without)
        return np.interp(rows, list(found), list(found.values()))

    def _drafts(self, step: float) -> dict[int, float]:
        """Seconds by block size; none without a drafter.  On straight lines between those that were timed."""
        if not self.blocks:
            return {}
        names = {block: self._draft_name(block) for block in self.blocks}
        found = {block: self.known.seconds[x] for block, x in names.items() if x in self.known.seconds}
        if not found:
            found = {self.block_size: DRAFT_SHARE * step}
        return {b: float(np.interp(b, list(found), list(found.values()))) for b in self.blocks}


def cannot_win(seconds: list[float]) -> bool:
    """Whether the last two sizes both take longer than plain decoding of all that a round can emit; one alone may have
    been disturbed."""
    longest = LONGEST_COPY // 2
    return len(seconds) > 2 and min(seconds[-2:]) > longest * seconds[0]


def is_quantised(model: nn.Module) -> bool:
    """Whether the model multiplies by packed weights."""
    return any(isinstance(module, nn.QuantizedLinear) for module in model.modules())


def _architecture() -> str | None:
    """The GPU's, as MLX names it; None where a processor computes."""
    return str(mx.device_info().get("architecture", "")) if mx.metal.is_available() else None


def _some_of(measured: list[int]) -> list[int]:
    """SOME_ROWS, as far as so many rows were measured, and the largest of those."""
    return sorted({n for n in SOME_ROWS if n in measured} | set(measured[-1:]))[:4]


def _at(rows: list[int], seconds: Any, n: int) -> float:
    return float(seconds[rows.index(n)])
