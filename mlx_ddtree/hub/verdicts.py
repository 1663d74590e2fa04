"""What a model's test for draft trees has found before, so that each model is tested once and not at every start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import mlx.nn as nn

from mlx_ddtree._home import cache_folder
from mlx_ddtree.errors import ConfigError
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.machine import __version__, package_version
from mlx_ddtree.target import TREE_FAMILIES, Target, family_of, make_target
from mlx_ddtree.target.make import How, Verdict, verdict_of
from mlx_ddtree.untrusted import read_json

MOST = 200
"""Models that are remembered; the oldest are forgotten."""


def make_known_target(model: nn.Module, config: dict[str, Any]) -> Target:
    """The adapter for a loaded mlx-lm model with this config.json; see `target.make_target`.

    A family that nobody has looked at is tested, some tens of forwards of a few rows, and what the test finds is kept
    for this config, mlx-lm and package.
    """
    if family_of(model) in TREE_FAMILIES:
        return make_target(model)
    file = cache_folder() / "models" / "verify_trees.json"
    key = _key(config)
    known = _read(file)
    if key in known:
        return make_target(model, known[key])
    target = make_target(model)
    _write(file, known | {key: verdict_of(target)})
    return target


def _key(config: dict[str, Any]) -> str:
    """What the test's result depends on."""
    versions = [__version__, package_version("mlx-lm"), package_version("mlx")]
    said = json.dumps([versions, config], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:20]


def _read(file: Path) -> dict[str, Verdict]:
    """What was found by model.  A file that is missing or damaged has nothing."""
    try:
        known = read_json(file)
    except ConfigError:
        return {}
    return {key: verdict for key, said in known.items() if (verdict := _verdict(said)) is not None}


def _verdict(said: Any) -> Verdict | None:
    """What the file says of one model; None where that is nothing of ours."""
    if not isinstance(said, dict) or said.get("how") not in get_args(How) or not isinstance(said.get("why"), str):
        return None
    return Verdict(said["how"], said["why"])


def _write(file: Path, known: dict[str, Verdict]) -> None:
    """A folder that takes no file only costs the test again."""
    latest = {key: asdict(verdict) for key, verdict in list(known.items())[-MOST:]}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            stream.write(json.dumps(latest).encode())
    except OSError:
        return
