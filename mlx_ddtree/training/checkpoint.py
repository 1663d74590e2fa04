"""Checkpoints: everything a training run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_unflatten

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import OptionError, WeightsError
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.saving import flat, public_config
from mlx_ddtree.training.schedule import TrainingProgress
from mlx_ddtree.untrusted import read_json

RunIdentity = dict[str, Any]
"""{"settings", "drafter", "data"}: what a resumed run must share with the one that it continues."""
DRAFTER = "drafter."
OPTIMIZER = "optimizer."
"""What the names of a checkpoint's tensors begin with."""


def checkpoint_file(output: Path) -> Path:
    """The checkpoint of a run, in a folder of its own: `load_drafter` reads every *.safetensors beside config.json."""
    return output / "checkpoint" / "state.safetensors"


def run_identity(config: DrafterConfig, settings: Mapping[str, Any], examples: Sequence[Example]) -> RunIdentity:
    """A run's settings and drafter, and a digest of its data."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.prompt_tokens, example.response_tokens]).encode())
    return {"settings": dict(settings), "drafter": public_config(config), "data": digest.hexdigest()}


def save_checkpoint(
    output: Path,
    drafter: DFlashDrafter,
    optimizer: optim.Optimizer,
    identity: RunIdentity,
    progress: Mapping[str, Any],
) -> None:
    """Weights in float32, optimizer state, and `progress`; batches and anchors are functions of seed and step.

    The file is replaced as a whole: a kill while saving leaves the previous checkpoint.
    """
    path = checkpoint_file(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {DRAFTER + name: value for name, value in flat(drafter.parameters()).items()}
    arrays |= {OPTIMIZER + name: value for name, value in flat(optimizer.state).items()}
    metadata = {"run": json.dumps(identity), "progress": json.dumps(dict(progress))}
    with replacing(path) as file:
        mx.save_safetensors(file, arrays, metadata=metadata)


def load_checkpoint(
    output: Path, drafter: DFlashDrafter, optimizer: optim.Optimizer, identity: RunIdentity
) -> TrainingProgress:
    """Restore drafter and optimizer; return the progress.

    Raises OptionError when there is none or the run is another one, WeightsError when it is no checkpoint.
    """
    arrays, stored, progress = _read(output)
    check_same_settings(stored, identity)
    if stored["data"] != identity["data"]:
        raise OptionError("--resume: the training data is not that of the run; start a new one with --init")
    try:
        drafter.load_weights(list(_with_prefix(arrays, DRAFTER).items()))
        optimizer.init(drafter.trainable_parameters())
        _check_state(flat(optimizer.state), _with_prefix(arrays, OPTIMIZER))
    except ValueError as error:
        raise WeightsError(f"{checkpoint_file(output)} does not fit the run: {error}") from None
    optimizer.state = tree_unflatten(list(_with_prefix(arrays, OPTIMIZER).items()))
    mx.eval(drafter.parameters(), optimizer.state)
    return progress


def stored_identity(output: Path) -> RunIdentity:
    """What run the checkpoint in `output` is of, without its arrays.  Raises as `load_checkpoint`."""
    _, stored, _ = _read(output)
    return stored


def stored_progress(output: Path) -> TrainingProgress:
    """How far the checkpoint in `output` has come, without its arrays.  Raises as `load_checkpoint`."""
    _, _, progress = _read(output)
    return progress


def check_same_settings(stored: RunIdentity, now: RunIdentity) -> None:
    """Raises OptionError, naming the first option of the run or of the drafter that is another one now."""
    for part in ("settings", "drafter"):
        wanted = json.loads(json.dumps(now[part]))
        for key in sorted(stored[part].keys() | wanted.keys()):
            if stored[part].get(key) != wanted.get(key):
                raise OptionError(
                    f"--resume continues a run with {key} = {stored[part].get(key)!r}, but it is {wanted.get(key)!r} "
                    "now; give the options of that run, or start a new one from its drafter with --init"
                )


def _read(output: Path) -> tuple[dict[str, mx.array], RunIdentity, TrainingProgress]:
    """Arrays, not read yet, run and progress."""
    path = checkpoint_file(output)
    if not path.exists():
        raise OptionError(
            f"--resume: there is no checkpoint in {output}; if the run was stopped before its first one, leave "
            "--resume out: what the target answered is kept"
        )
    try:
        arrays, metadata = mx.load(str(path), return_metadata=True)
        assert isinstance(arrays, dict)
        assert isinstance(metadata, dict)
        stored = read_json(metadata["run"], name=f"{path}: its run", error=WeightsError)
        progress = TrainingProgress(**read_json(metadata["progress"], name=f"{path}: its progress", error=WeightsError))
        if not all(isinstance(stored[part], dict) for part in ("settings", "drafter")) or "data" not in stored:
            raise ValueError("it does not say what run it is of")
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is no checkpoint of a training run, or damaged: {error}") from None
    return arrays, stored, progress


def _with_prefix(arrays: Mapping[str, mx.array], prefix: str) -> dict[str, mx.array]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _check_state(expected: Mapping[str, mx.array], found: Mapping[str, mx.array]) -> None:
    """Raises ValueError unless the optimizer's tensors are there in their shapes, and none besides."""
    different = sorted(expected.keys() ^ found.keys())
    for name in expected.keys() & found.keys():
        if expected[name].shape != found[name].shape:
            different.append(name)
    if different:
        raise ValueError(f"the optimizer's {different[0]} is missing, unexpected or of another shape")
