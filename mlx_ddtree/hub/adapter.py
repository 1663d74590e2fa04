"""LoRA, DoRA and fully fine-tuned weights that mlx_lm.lora has written, on top of a target's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx_lm.utils import load_adapters

from mlx_ddtree.errors import ConfigError, WeightsError, one_line
from mlx_ddtree.hub.names import expand_user
from mlx_ddtree.untrusted import read_json

CONFIG = "adapter_config.json"
WEIGHTS = "adapters.safetensors"
FINE_TUNE_TYPES = ("lora", "dora", "full")


def adapter_folder(path: str | Path) -> Path:
    """The checked folder of an adapter.  Raises ConfigError or WeightsError, with what to do."""
    folder = expand_user(path)
    if folder.is_file():
        raise ConfigError(f"the adapter {path} is a file: give the folder that holds {CONFIG} and {WEIGHTS}")
    if not folder.is_dir():
        raise ConfigError(f"the adapter {path}: no such folder; give one that mlx_lm.lora has written")
    check_adapter_config(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise WeightsError(f"the adapter {path} holds no {WEIGHTS}")
    return folder


def check_adapter_config(file: Path) -> None:
    """Raise ConfigError unless mlx-lm can read this adapter_config.json."""
    if not file.exists():
        raise ConfigError(f"{file} does not exist: an adapter is a folder that mlx_lm.lora has written")
    config = read_json(file)
    if "peft_type" in config:
        raise ConfigError(
            f"{file} is PEFT's, and mlx-lm reads its own adapters only: merge it into the model with PEFT "
            "(merge_and_unload), or train it with mlx_lm.lora"
        )
    kind = config.get("fine_tune_type", "lora")
    if kind not in FINE_TUNE_TYPES:
        raise ConfigError(f"{file}: 'fine_tune_type' is {kind!r}; mlx-lm knows {', '.join(FINE_TUNE_TYPES)}")
    if kind != "full":
        _check_lora(config, file)


def _check_lora(config: dict[str, Any], file: Path) -> None:
    layers = config.get("num_layers")
    if not isinstance(layers, int) or isinstance(layers, bool):
        raise ConfigError(f"{file}: 'num_layers' is {layers!r}, not a whole number")
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise ConfigError(f"{file}: 'lora_parameters' is {parameters!r}, not an object with rank, scale and dropout")
    rank = parameters.get("rank")
    if not isinstance(rank, int) or not 1 <= rank <= 2**16:
        raise ConfigError(f"{file}: 'rank' is {rank!r}, not a whole number from 1")


def apply_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """The model with the adapter's layers, not evaluated.  Raises WeightsError where they do not fit the model."""
    try:
        return load_adapters(model, str(folder))
    except Exception as error:  # whatever mlx-lm and MLX raise on an adapter of another model
        raise WeightsError(f"the adapter {folder} does not fit this model: {one_line(error)}") from error
