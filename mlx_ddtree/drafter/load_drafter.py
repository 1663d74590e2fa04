"""Read a drafter's folder strictly: every tensor expected is there, and none besides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.known_keys import QUANTISATION_MODES
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.tensor_names import OF_NO_USE, our_name, public_name, split_fused
from mlx_ddtree.errors import ConfigError, WeightsError, one_line
from mlx_ddtree.untrusted import read_json

MASK_EMBEDDING = "mask_embedding.pt"
"""What some drafters embed their masks with (Xiaomi's)."""
"""The formats that MLX quantises to."""


def load_drafter(folder: Path) -> DFlashDrafter:
    """The drafter of a local folder with config.json and *.safetensors, its weights not evaluated.

    Raises ConfigError (config.json) or WeightsError (tensors), naming the key or tensor.
    """
    config = DrafterConfig.from_dict(read_drafter_config(folder))
    if (folder / MASK_EMBEDDING).exists():
        raise WeightsError(
            f"drafter in {folder}: its masks have an embedding of their own, in {MASK_EMBEDDING}, and pickled tensors "
            "are not read here; use another drafter or decode plainly (draft=False / --method ar)"
        )
    weights, files = split_fused(config, *read_weights(folder))
    config = as_stored(config, weights)
    drafter = _make(config, count_taps(config, weights))
    if config.confidence and "confidence_head.proj.bias" not in weights:
        drafter.confidence_head.proj.pop("bias")
    if config.quantization:
        quantize(drafter, config.quantization, weights)
    check_weights(drafter, weights, files, folder)
    drafter.load_weights(list(weights.items()))
    drafter.eval()
    return drafter


def read_drafter_config(folder: Path) -> dict[str, Any]:
    """A drafter's config.json, as it stands there.  Raises ConfigError."""
    file = folder / "config.json"
    if not file.exists():
        raise ConfigError(f"{file} does not exist: is this the folder of a DFlash drafter?")
    return read_json(file)


def _make(config: DrafterConfig, taps: int) -> DFlashDrafter:
    try:
        return make_drafter(config, taps)
    except (
        ArithmeticError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # MLX's, at sizes or RoPE settings it cannot have
        raise ConfigError(f"drafter config.json: MLX makes no network of these values: {one_line(error)}") from error


def read_weights(folder: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    """All tensors of the folder's safetensors files, and the file of each, by our names.

    A `model.` before every name of a file is left out.  Raises WeightsError.
    """
    weights: dict[str, mx.array] = {}
    files: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors = cast(dict[str, mx.array], mx.load(str(file)))
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{file} cannot be read, download it again: {one_line(error)}") from None
        prefix = "model." if all(name.startswith("model.") for name in tensors) else ""
        for stored_name, value in tensors.items():
            name = our_name(stored_name.removeprefix(prefix))
            if name in OF_NO_USE:
                continue
            if name in files:
                raise WeightsError(_about_twice(public_name(name), files[name], file.name, folder))
            weights[name] = value
            files[name] = file.name
    if not weights:
        raise WeightsError(f"no *.safetensors in {folder}")
    return weights, files


def _about_twice(name: str, first: str, second: str, folder: Path) -> str:
    if first == second:
        return f"drafter in {folder}: {name} is there under two names"
    return f"drafter in {folder}: {name} is in {first} and in {second}; move away the file that does not belong there"


def as_stored(config: DrafterConfig, weights: dict[str, mx.array]) -> DrafterConfig:
    """The config with what only the tensors say: which parts the drafter has of its own."""
    vocab_size = config.vocab_size
    for name in ("embed_tokens.weight", "lm_head.weight"):
        if vocab_size is None and name in weights:
            vocab_size = len(weights[name])
    confidence = config.confidence
    if confidence is not None and (proj := weights.get("confidence_head.proj.weight")) is not None:
        confidence = replace(confidence, with_markov=proj.shape[-1] > config.hidden_size)
    return replace(
        config,
        vocab_size=vocab_size,
        own_embedding="embed_tokens.weight" in weights,
        own_head="lm_head.weight" in weights or config.draft_vocab_size is not None,
        confidence=confidence,
    )


def count_taps(config: DrafterConfig, weights: dict[str, mx.array]) -> int:
    """How many target layers are tapped: said by the config, else by the shape of fc."""
    if config.target_layer_ids is not None:
        return len(config.target_layer_ids)
    if "layer_fusion_weights" in weights:
        return weights["layer_fusion_weights"].shape[-1]
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
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ConfigError(
            f"drafter config.json: 'quantization' {settings!r} does not fit the layers: {one_line(error)}"
        ) from None


def quantization_settings(settings: dict[str, Any]) -> tuple[int, int]:
    """(group size, bits)."""
    try:
        return int(settings["group_size"]), int(settings["bits"])
    except (ArithmeticError, KeyError, TypeError, ValueError):
        raise ConfigError(
            f"drafter config.json: 'quantization' needs 'group_size' and 'bits' (MLX's formats); got {settings!r}"
        ) from None


def check_weights(drafter: DFlashDrafter, weights: dict[str, mx.array], files: dict[str, str], folder: Path) -> None:
    """Raise WeightsError naming up to five tensors that are missing, unexpected or misshapen.

    files: the name of the file that each tensor stands in.
    """
    expected: dict[str, mx.array] = dict(tree_flatten(drafter.parameters()))
    known_files = {files[name] for name in expected.keys() & weights.keys()}
    strangers = sorted(set(files.values()) - known_files)
    if known_files and strangers:
        raise WeightsError(
            f"drafter in {folder}: {', '.join(strangers)} holds nothing of this drafter; move it to another folder"
        )
    problems = [f"{name} is missing" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"{name} is unexpected (in {files[name]})" for name in sorted(weights.keys() - expected.keys())]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & weights.keys())
        if weights[name].shape != expected[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise WeightsError(f"drafter in {folder}: {'; '.join(problems[:5])}{more}")
