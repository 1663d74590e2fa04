"""Read a drafter's folder strictly: every tensor expected is there, and none besides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.dflash2 import make_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import ConfigError, WeightsError

OTHER_NAMES = {
    "encoder.fc.": "fc.",
    "encoder.output_norm_enc.": "hidden_norm.",
}
"""Beginnings of tensor names in Meta's layout, and ours."""
QUANTISATION_MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
"""MLX's."""


def load_drafter(folder: Path) -> DFlashDrafter:
    """The drafter of a local folder with config.json and *.safetensors.

    Raises ConfigError (config.json) or WeightsError (tensors), naming the key or tensor.
    """
    config = DrafterConfig.from_dict(read_json(folder / "config.json"))
    weights = read_weights(folder)
    drafter = make_drafter(config, count_taps(config, weights))
    if config.quantization:
        quantize(drafter, config.quantization, weights)
    check_weights(drafter, weights, folder)
    drafter.load_weights(list(weights.items()))
    drafter.eval()
    return drafter


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: is this the folder of a DFlash drafter?") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} does not hold a JSON object")
    return value


def read_weights(folder: Path) -> dict[str, mx.array]:
    """All tensors of the folder's safetensors files by our names, without a common `model.` prefix."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"no *.safetensors in {folder}")
    weights: dict[str, mx.array] = {}
    for file in files:
        try:
            weights |= cast(dict[str, mx.array], mx.load(str(file)))
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{file} cannot be read, download it again: {error}") from None
    if all(name.startswith("model.") for name in weights):
        weights = {name.removeprefix("model."): value for name, value in weights.items()}
    renamed = {our_name(name): value for name, value in weights.items()}
    if len(renamed) < len(weights):
        twice = sorted(name for name in weights if our_name(name) != name and our_name(name) in weights)
        raise WeightsError(f"drafter in {folder}: {', '.join(twice)} is there under two names")
    return renamed


def our_name(name: str) -> str:
    """A tensor's name here, whichever of the public layouts it comes from."""
    for theirs, ours in OTHER_NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"{name}.weight" if name.endswith("_codebook") else name


def public_name(name: str) -> str:
    """The name under which published DFlash 2 drafters store a tensor."""
    return name.removesuffix(".weight") if name.endswith("_codebook.weight") else name


def count_taps(config: DrafterConfig, weights: dict[str, mx.array]) -> int:
    """How many target layers are tapped: said by the config, else by the shape of fc."""
    if config.target_layer_ids is not None:
        return len(config.target_layer_ids)
    if "fc.weight" not in weights:
        raise WeightsError("the drafter's tensor fc.weight is missing")
    if "fc.scales" in weights and config.quantization:
        group_size, _ = quantization_settings(config.quantization)
        width = weights["fc.scales"].shape[-1] * group_size
    else:
        width = weights["fc.weight"].shape[-1]
    if width == 0 or width % config.hidden_size:
        raise WeightsError(f"the drafter's fc.weight has {width} columns, no multiple of {config.hidden_size}")
    return width // config.hidden_size


def quantize(drafter: DFlashDrafter, settings: dict[str, Any], weights: dict[str, mx.array]) -> None:
    """Make those layers quantised that are stored so (mlx-lm's convention: a layer may have settings of its own)."""
    group_size, bits = quantization_settings(settings)
    mode = settings.get("mode", "affine")
    if mode not in QUANTISATION_MODES:
        raise ConfigError(
            f"drafter config.json: quantisation mode {mode!r} is not known; known: {', '.join(QUANTISATION_MODES)}"
        )

    def stored(path: str, _: nn.Module) -> bool | dict[str, Any]:
        return settings.get(path, True) if f"{path}.scales" in weights else False

    try:
        nn.quantize(drafter, group_size, bits, mode=mode, class_predicate=stored)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"drafter config.json: 'quantization' {settings!r} does not fit the layers: {error}"
        ) from None


def quantization_settings(settings: dict[str, Any]) -> tuple[int, int]:
    """(group size, bits)."""
    try:
        return int(settings["group_size"]), int(settings["bits"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"drafter config.json: 'quantization' needs 'group_size' and 'bits' (MLX's formats); got {settings!r}"
        ) from None


def check_weights(drafter: DFlashDrafter, weights: dict[str, mx.array], folder: Path) -> None:
    expected: dict[str, mx.array] = dict(tree_flatten(drafter.parameters()))
    problems = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"{name} is unexpected" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & weights.keys())
        if weights[name].shape != expected[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise WeightsError(f"drafter in {folder}: {'; '.join(problems[:5])}{more}")
