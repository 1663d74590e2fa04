"""What is known of a pair on this machine: costs, calibrations, rounding; tuning/store.py keeps it on disk."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mlx_ddtree.budget.calibration import DECAY, DraftCalibration, RecallCalibration
from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.survival import Survival
from mlx_ddtree.budget.unread import Comparison

ParityMode = Literal["exact", "rows", "off"]
"""What decides near ties (decoding/parity.py)."""
PARITY_MODES = ("exact", "rows", "off")


class ParityBounds(NamedTuple):
    """Margins between the two best logits below which a choice may differ from plain decoding's.

    rows: of a row among several.  cache: of a single row, over a cache filled by several at a time.
    """

    rows: float = 0.0
    cache: float = 0.0


TRUSTING = ParityBounds()
"""Every choice counts as it is."""


@dataclass
class Profile:
    """One per pair and machine, shared by all its sequences.

    kernels: names of the kernels in use, by rows of a verification (tuning/choose.py); findings: what was found of
        each.
    block_size: the drafter's longest; 1 without one.
    drafts, survivals: what was learned of drafts, by how the target chooses: 'greedy' or 'sampled'.
    reading: how the drafter's file is read, and what other readings are worth (tuning/reading.py); None: not looked at.
    path: the file that keeps it between runs; None keeps it in memory only.
    rounds_unsaved: drafted rounds that the file does not know of.
    chains: what whole chains, unread, were worth against trees, by how the target chooses.
    measured: the share of all measurements that was made; below 1 the rest is guessed, and measured later.
    numbers: what was measured of an incomplete profile, by name.
    in_grammars: what texts that follow a grammar go by and add to, in memory only; None before the first of them.
    """

    cost: CostTable
    parity: ParityBounds
    block_size: int
    path: Path | None = None
    kernels: dict[int, list[str]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    reading: dict[str, Any] | None = None
    drafts: dict[str, DraftCalibration] = field(default_factory=dict)
    survivals: dict[str, Survival] = field(default_factory=dict)
    lookups: RecallCalibration = field(default_factory=RecallCalibration)
    chains: dict[str, Comparison] = field(default_factory=dict)
    rounds_unsaved: int = 0
    measured: float = 1.0
    numbers: dict[str, float] = field(default_factory=dict)
    in_grammars: Profile | None = field(default=None, repr=False)

    def for_grammars(self) -> Profile:
        """This profile for texts that follow a grammar, whose rounds would teach free texts the wrong chances.

        It is made anew once more of this one was measured.
        """
        if self.in_grammars is None or self.in_grammars.measured != self.measured:
            self.in_grammars = None
            self.in_grammars = replace(deepcopy(self), path=None)
        return self.in_grammars

    @property
    def complete(self) -> bool:
        """Whether nothing is left to measure."""
        return self.measured >= 1

    def draft_calibration(self, greedy: bool) -> DraftCalibration:
        return self.drafts.setdefault("greedy" if greedy else "sampled", DraftCalibration(self.block_size - 1))

    def survival(self, greedy: bool) -> Survival:
        return self.survivals.setdefault("greedy" if greedy else "sampled", Survival(self.block_size - 1, DECAY))

    def comparison(self, greedy: bool) -> Comparison:
        """What whole chains were worth, unread, beside what was chosen of drafts that were read."""
        survival = Survival(self.block_size - 1, DECAY)
        return self.chains.setdefault("greedy" if greedy else "sampled", Comparison(survival))
