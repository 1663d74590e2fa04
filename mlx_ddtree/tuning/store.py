"""The file of a pair's profile: read when the pair is first used, written after answers that taught enough."""

from __future__ import annotations

import json
import logging
import math
import re
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree._home import cache_folder
from mlx_ddtree.budget import saved
from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.profile import ParityBounds, Profile
from mlx_ddtree.budget.survival import Survival
from mlx_ddtree.tuning.reading import ReadingCheck

VERSION = 11
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
        if record["version"] != VERSION:
            return None
        return _profile(record, path, block_size)
    except FileNotFoundError:
        return None
    except (OSError, ArithmeticError, ValueError, LookupError, TypeError, RecursionError) as error:
        logging.getLogger(__name__).warning("%s cannot be used (%s); measuring again", path, error)
        return None


def forget() -> int:
    """Remove the profiles of all pairs from the user's cache folder; how many there were.  Other files stay."""
    removed = 0
    for path in cache_folder().glob("*.json"):
        if re.fullmatch(r"[0-9a-f]{20}(\.part)?", path.stem):
            with suppress(OSError):
                path.unlink()
                removed += 1
    return removed


def _record(profile: Profile) -> dict[str, Any]:
    """What the file says, ready for JSON."""
    return {
        "version": VERSION,
        "cost": profile.cost.as_dict(),
        "parity": profile.parity,
        "kernels": {str(rows): names for rows, names in profile.kernels.items()},
        "findings": profile.findings,
        "reading": profile.reading,
        "drafts": {name: c.as_dict() for name, c in profile.drafts.items() if c.hits.size},
        "survivals": {name: _counts(s) for name, s in profile.survivals.items() if s.hits},
        "chains": {
            name: [_counts(c.survival), math.exp(c.advantage), c.compared]
            for name, c in profile.chains.items()
            if c.survival.hits
        },
        "lookups": profile.lookups.as_dict(),
        "measured": profile.measured,
    }


def _profile(record: dict[str, Any], path: Path, block_size: int) -> Profile:
    """The profile that `_record` described.  Raises LookupError, TypeError or ValueError otherwise."""
    rows, cache = saved.items(record["parity"])
    bounds = ParityBounds(saved.positive(rows), saved.positive(cache))
    profile = Profile(CostTable.from_dict(saved.table(record["cost"])), bounds, block_size, path)
    if bool(profile.cost.draft) != (block_size > 1):
        raise ValueError("costs of drafts where there is no drafter, or none where there is one")
    for size, names in saved.table(record["kernels"]).items():
        profile.kernels[saved.integer(int(size))] = [_text(name) for name in saved.items(names)]
    profile.findings = [_finding(finding) for finding in saved.items(record["findings"])]
    if record.get("reading") is not None:
        profile.reading = ReadingCheck.from_dict(record["reading"]).as_dict()
    for name, calibration in saved.table(record["drafts"]).items():
        profile.draft_calibration(_is_greedy(name)).load(_arrays(calibration, "hits", "expected"))
    for name, counts in saved.table(record["survivals"]).items():
        _load_counts(profile.survival(_is_greedy(name)), counts)
    for name, found in saved.table(record["chains"]).items():
        comparison = profile.comparison(_is_greedy(name))
        counts, factor, compared = saved.items(found)
        _load_counts(comparison.survival, counts)
        comparison.advantage = math.log(saved.positive(factor))
        comparison.compared = saved.integer(compared)
    profile.lookups.load(_arrays(record["lookups"], "hits", "expected"))
    profile.measured = min(saved.number(record["measured"]), 1.0)
    return profile


def _counts(survival: Survival) -> list[list[float]]:
    return [survival.hits, survival.trials]


def _load_counts(survival: Survival, record: object) -> None:
    """Take over hits and trials; those of other depths are ignored."""
    hits, trials = saved.items(record)
    read = _arrays({"hits": hits, "trials": trials}, "hits", "trials")
    if read["hits"].shape == (len(survival.hits),):
        survival.hits = read["hits"].tolist()
        survival.trials = read["trials"].tolist()


def _is_greedy(name: str) -> bool:
    if name not in ("greedy", "sampled"):
        raise ValueError(f"drafts of an unknown kind {name[:40]!r}")
    return name == "greedy"


def _arrays(record: object, *names: str) -> dict[str, NDArray[np.float64]]:
    """Arrays of counts by name, all of one shape."""
    fields = saved.table(record)
    arrays = {name: saved.counts(fields[name]) for name in names}
    if len({array.shape for array in arrays.values()}) > 1:
        raise ValueError("counts that do not belong together")
    return arrays


def _finding(record: object) -> dict[str, Any]:
    """What tuning/choose.py found of one kernel, as `mlx_ddtree.doctor` prints it."""
    fields = saved.table(record)
    error = fields["error"]
    agrees = fields["agrees"]
    if not isinstance(agrees, bool):
        raise TypeError("a kernel that agrees neither way")
    return {
        "name": _text(fields["name"]),
        "error": None if error is None else saved.number(error),
        "agrees": agrees,
        "speedup": {int(size): saved.positive(ratio) for size, ratio in saved.table(fields["speedup"]).items()},
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no name")
    return value
