"""Checkpoints: everything a training run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_unflatten

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import OptionError, WeightsError
from mlx_ddtree.training.data import Example
from mlx_ddtree.training.setup import flat, public_config

Run = dict[str, Any]


def checkpoint_file(output: Path) -> Path:
    """In a folder of its own: `load_drafter` reads every *.safetensors beside config.json."""
    return output / "checkpoint" / "state.safetensors"


def describe_run(drafter: DFlashDrafter, settings: dict[str, Any], examples: Sequence[Example]) -> Run:
    """What a resumed run must share with the one that it continues."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.prompt_tokens, example.response_tokens]).encode())
    return {"settings": settings, "drafter": public_config(drafter.config), "data": digest.hexdigest()}


def save_checkpoint(
    output: Path, drafter: DFlashDrafter, optimizer: optim.Optimizer, run: Run, progress: dict[str, Any]
) -> None:
    """Weights in float32, optimizer state, and `progress`; batches and anchors are functions of seed and step.

    One file, moved into place when complete: an interruption leaves the previous checkpoint.
    """
    file = checkpoint_file(output)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"drafter.{name}": value for name, value in flat(drafter.parameters()).items()}
    arrays |= {f"optimizer.{name}": value for name, value in flat(optimizer.state).items()}
    unfinished = file.with_name("unfinished.safetensors")
    mx.save_safetensors(str(unfinished), arrays, metadata={"run": json.dumps(run), "progress": json.dumps(progress)})
    os.replace(unfinished, file)


def load_checkpoint(output: Path, drafter: DFlashDrafter, optimizer: optim.Optimizer, run: Run) -> dict[str, Any]:
    """Restore drafter and optimizer; return the progress.  Raises OptionError when the run is another one."""
    file = checkpoint_file(output)
    if not file.exists():
        raise OptionError(f"--resume: there is no checkpoint in {output}")
    try:
        arrays, metadata = mx.load(str(file), return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read: {error}") from None
    assert isinstance(arrays, dict)
    assert isinstance(metadata, dict)
    _check_same_run(json.loads(metadata["run"]), json.loads(json.dumps(run)))
    drafter.load_weights([(k.removeprefix("drafter."), v) for k, v in arrays.items() if k.startswith("drafter.")])
    state = [(k.removeprefix("optimizer."), v) for k, v in arrays.items() if k.startswith("optimizer.")]
    optimizer.init(drafter.trainable_parameters())
    optimizer.state = tree_unflatten(state)
    mx.eval(drafter.parameters(), optimizer.state)
    return json.loads(metadata["progress"])


def _check_same_run(stored: Run, now: Run) -> None:
    for part in ("settings", "drafter"):
        for key in sorted(stored[part].keys() | now[part].keys()):
            was, wants = stored[part].get(key), now[part].get(key)
            if was != wants:
                raise OptionError(
                    f"--resume continues a run with {key} = {was!r}, but it is {wants!r} now; give the options of "
                    "that run, or start a new one from its drafter with --init"
                )
    if stored["data"] != now["data"]:
        raise OptionError("--resume: the training data is not that of the run; start a new one with --init")
