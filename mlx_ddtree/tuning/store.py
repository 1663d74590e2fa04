"""The file of a pair's profile: read when the pair is first used, written after answers that taught enough."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.profile import ParityBounds, Profile

VERSION = 4
WORTH_SAVING = 16
"""Drafted rounds that are worth a write."""


def save_if_worth(profile: Profile) -> None:
    """Write what the last answers taught, once it is enough; never while an answer goes on."""
    if profile.rounds_unsaved >= WORTH_SAVING:
        save(profile)


def save(profile: Profile) -> None:
    """Write the profile's file atomically.  A read-only disk is no reason to stop decoding."""
    profile.rounds_unsaved = 0
    if profile.path is None:
        return
    text = json.dumps(_record(profile))
    with suppress(OSError):
        profile.path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=profile.path.parent, delete=False, encoding="utf-8") as file:
            written = Path(file.name)
            try:
                file.write(text)
                file.close()
                written.replace(profile.path)
            finally:
                written.unlink(missing_ok=True)  # still there only if that failed


def load(path: Path, block_size: int) -> Profile | None:
    """The profile at `path`, or None where there is none that can be used."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return _profile(record, path, block_size) if record["version"] == VERSION else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s cannot be used (%s); measuring again", path, error)
        return None


def _record(profile: Profile) -> dict[str, Any]:
    """What the file says, ready for JSON."""
    return {
        "version": VERSION,
        "cost": profile.cost.as_dict(),
        "parity": profile.parity,
        "kernels": {str(rows): names for rows, names in profile.kernels.items()},
        "findings": profile.findings,
        "drafts": {name: c.as_dict() for name, c in profile.drafts.items()},
        "survivals": {name: [s.hits.tolist(), s.trials.tolist()] for name, s in profile.survivals.items()},
        "lookups": profile.lookups.as_dict(),
    }


def _profile(record: dict[str, Any], path: Path, block_size: int) -> Profile:
    """The profile that `_record` described.  Raises KeyError, TypeError, ValueError or AttributeError."""
    rows, cache = (float(bound) for bound in record["parity"])
    profile = Profile(CostTable.from_dict(record["cost"]), ParityBounds(rows, cache), block_size, path)
    profile.kernels = {int(rows): list(names) for rows, names in record["kernels"].items()}
    profile.findings = list(record["findings"])
    for name, saved in record["drafts"].items():
        profile.draft_calibration(name == "greedy").load(saved)
    for name, counts in record["survivals"].items():
        survival = profile.survival(name == "greedy")
        hits, trials = np.array(counts, float)
        if hits.shape == survival.hits.shape:
            survival.hits, survival.trials = hits, trials
    profile.lookups.load(record["lookups"])
    return profile
