"""What is known of a pair on this machine: costs, calibrations, rounding; kept on disk between runs."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np

from mlx_ddtree.tree.calibration import DECAY, DraftCalibration, LookupCalibration
from mlx_ddtree.tree.cost import CostTable
from mlx_ddtree.tree.policy import Survival

VERSION = 4
SAVE_EVERY, WORTH_SAVING = 256, 16
"""Rounds between two writes, while a text goes on and at its end."""


def cache_folder() -> Path:
    """Where profiles are kept: $MLX_DDTREE_CACHE, or mlx_ddtree in the user's cache folder."""
    given = os.environ.get("MLX_DDTREE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given or Path(base) / "mlx_ddtree").expanduser()


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

    kernels: names of the kernels in use, by rows of a verification (decoding/choose.py); findings: what was found of
        each.
    drafts, survivals: what was learned of drafts, by how the target chooses: 'greedy' or 'sampled'.
    path: None keeps it in memory only.
    """

    cost: CostTable
    parity: ParityBounds
    block_size: int
    path: Path | None = None
    kernels: dict[int, list[str]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    drafts: dict[str, DraftCalibration] = field(default_factory=dict)
    survivals: dict[str, Survival] = field(default_factory=dict)
    lookups: LookupCalibration = field(default_factory=LookupCalibration)
    _rounds: int = 0

    def draft_calibration(self, greedy: bool) -> DraftCalibration:
        return self.drafts.setdefault("greedy" if greedy else "sampled", DraftCalibration(self.block_size - 1))

    def survival(self, greedy: bool) -> Survival:
        return self.survivals.setdefault("greedy" if greedy else "sampled", Survival(self.block_size - 1, DECAY))

    def saw_round(self) -> None:
        """Count rounds, and write the profile now and then."""
        self._rounds += 1
        if self._rounds >= SAVE_EVERY:
            self.save()

    def close(self) -> None:
        """Write what the last rounds taught, if it is worth a file."""
        if self._rounds >= WORTH_SAVING:
            self.save()

    def save(self) -> None:
        """Write atomically.  A read-only disk is no reason to stop decoding."""
        self._rounds = 0
        if self.path is None:
            return
        record = {
            "version": VERSION,
            "cost": self.cost.as_dict(),
            "parity": self.parity,
            "kernels": {str(rows): names for rows, names in self.kernels.items()},
            "findings": self.findings,
            "drafts": {name: c.as_dict() for name, c in self.drafts.items()},
            "survivals": {name: [s.hits.tolist(), s.trials.tolist()] for name, s in self.survivals.items()},
            "lookups": self.lookups.as_dict(),
        }
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=self.path.parent, delete=False, encoding="utf-8") as file:
                written = Path(file.name)
                try:
                    json.dump(record, file)
                    file.close()
                    written.replace(self.path)
                finally:
                    written.unlink(missing_ok=True)  # still there only if that failed

    @classmethod
    def load(cls, path: Path, block_size: int) -> Profile | None:
        """The profile at `path`, or None where there is none that can be used."""
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if record["version"] != VERSION:
                return None
            rows, cache = (float(bound) for bound in record["parity"])
            profile = cls(CostTable.from_dict(record["cost"]), ParityBounds(rows, cache), block_size, path)
            profile.kernels = {int(rows): list(names) for rows, names in record["kernels"].items()}
            profile.findings = list(record["findings"])
            for name, saved in record["drafts"].items():
                profile.draft_calibration(name == "greedy").load(saved)
            for name, counts in record["survivals"].items():
                survival, (hits, trials) = profile.survival(name == "greedy"), np.array(counts, float)
                if hits.shape == survival.hits.shape:
                    survival.hits, survival.trials = hits, trials
            profile.lookups.load(record["lookups"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logging.getLogger(__name__).warning("%s cannot be used (%s); measuring again", path, error)
            return None
        return profile
