"""What a pair's measurements depend on, as the name of a file: the weights themselves, this machine, its libraries.

Weights are looked at where they are loaded, so an adapter, a retrained checkpoint under an old name and another
quantisation are other pairs, while one that was moved to another folder is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_ddtree._blas import use_fast_blas
from mlx_ddtree._home import cache_folder
from mlx_ddtree.kernels.metal import metal_folder
from mlx_ddtree.machine import __version__
from mlx_ddtree.pair import Pair

SAMPLED = 16
"""Numbers of each weight that are looked at: the middle ones, since first ones are more often equal in two models."""
KNOWN_FROM_LOADING = ("target_config", "drafter_config")
THREADS = ("MKL_NUM_THREADS", "OMP_NUM_THREADS")


def profile_path(pair: Pair, mode: str) -> Path | None:
    """The file of this pair's profile on this machine; None for models that were made in memory.

    mode: of the kernels, 'auto', 'on' or 'off'.  How far the drafter sees and where the files lie do not count.
    """
    known = KNOWN_FROM_LOADING if pair.drafter is not None else KNOWN_FROM_LOADING[:1]
    if any(key not in pair.notes for key in known):
        return None
    facts = {
        "target_config": pair.notes["target_config"],
        "target": fingerprint(pair.target.model),
        "drafter": None if pair.drafter is None else fingerprint(pair.drafter),
        "drafter_config": None if pair.drafter is None else _lasting(pair.drafter.config),
        "ranks": pair.notes.get("ranks"),
        "split": pair.notes.get("split"),
        "kernels": mode,
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
        "device": str(mx.default_device()),
        "machine": platform.processor() or platform.machine(),
        "system": platform.mac_ver()[0],
        "mlx_ddtree": __version__,
        "metal": None if mode == "off" else metal_hash(),
        "info": _device_info(),
        "blas": use_fast_blas(),
        "threads": [os.environ.get(name) for name in THREADS],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    return cache_folder() / f"{digest[:20]}.json"


def metal_hash() -> str:
    """A hash of the kernels' source: with another one, what was found of them is about other kernels."""
    digest = hashlib.sha256()
    for path in sorted(metal_folder().iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """A hash of every parameter's name, shape, dtype and SAMPLED of its numbers, and of the scales of LoRA layers."""
    digest = hashlib.sha256()
    samples: list[mx.array] = []
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for name in sorted(weights):
        weight = weights[name]
        digest.update(f"{name} {weight.shape} {weight.dtype}\n".encode())
        middle = max(weight.size // 2 - SAMPLED // 2, 0)
        sample = weight.reshape(-1)[middle : middle + SAMPLED]
        samples.append(sample.astype(mx.float32))
    mx.eval(samples)
    for sample in samples:
        digest.update(np.array(sample).tobytes())
    for name, module in model.named_modules():
        if hasattr(module, "lora_a"):
            digest.update(f"{name} {getattr(module, 'scale', None)}\n".encode())
    return digest.hexdigest()


def _lasting(config: Any) -> dict[str, Any]:
    """A drafter's config without its windows, which --draft-window changes."""
    return {name: value for name, value in vars(config).items() if name != "windows"}


def _device_info() -> dict[str, Any]:
    info = mx.device_info() if hasattr(mx, "device_info") else {}
    return {k: v for k, v in info.items() if k in ("device_name", "architecture", "memory_size")}
