"""What is wrong with a target's folder, found before mlx-lm reads it.

mlx-lm trusts a config.json: a wrong one ends in a traceback from deep inside MLX, or in a loop over a thousand million
layers.  Here every such fault becomes one line that names the file and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_lm.utils import _get_classes

from mlx_ddtree.errors import ConfigError, UnsupportedModelError, WeightsError
from mlx_ddtree.untrusted import read_json

LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
MOST_LAYERS = 4096
SIZES = ("vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings")
LARGEST = 2**31 - 1
"""MLX counts along an axis in 32 bits."""
TOKENIZER_FILES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab*", "*tokeniz*.py")
"""Any one of these holds a vocabulary, or code that makes one."""


def read_target_config(folder: Path) -> dict[str, Any]:
    """The checked config.json of a target's folder.  Raises ConfigError."""
    file = folder / "config.json"
    if not file.exists():
        raise ConfigError(f"{file} does not exist: is this the folder of a language model?")
    config = read_json(file, finite=False)  # Mamba 2 writes Infinity
    check_config(config, str(file))
    generation = folder / "generation_config.json"
    if generation.exists():
        _check_end_of_text(read_json(generation, finite=False), str(generation))
    return config


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError where a target's config holds what no model can have; `name` is the file's.

    Raises UnsupportedModelError where mlx-lm has no such model type.
    """
    _check_layer_counts(config, name)
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        for key in SIZES:
            _check_number(part, key, 1, LARGEST, name)
        _check_rope_theta(part, name)
        _check_end_of_text(part, name)
    if config.get("model_file") is None:  # else the repository brings its own class
        _check_model_type(config, name)


def check_target_folder(folder: Path, *, weights: bool = True) -> None:
    """Raise what is wrong with a target's folder: its path, its config, its tokenizer, its weights.

    weights: False where they have not been fetched yet.
    Raises ConfigError, UnsupportedModelError or WeightsError.
    """
    read_target_config(folder)
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise ConfigError(f"{folder} holds no tokenizer: copy tokenizer.json and tokenizer_config.json there")
    if not weights:
        return
    if not any(folder.glob("model*.safetensors")):
        raise WeightsError(f"{folder} holds no model*.safetensors: download the weights, or convert them to this form")
    if any(mark in str(folder) for mark in "[*?"):
        raise ConfigError(f"mlx-lm finds no weights below a path with [, * or ? in it: rename {folder}")


def _check_layer_counts(config: Mapping[str, Any], name: str) -> None:
    """Parts for images and sound have layers too, so every object inside the config is looked at."""
    parts: list[Any] = [config]
    while parts:
        part = parts.pop()
        if not isinstance(part, Mapping):
            continue
        for key in LAYER_COUNTS:
            _check_number(part, key, 0, MOST_LAYERS, name)
        parts.extend(part.values())


def _check_number(part: Mapping[str, Any], key: str, least: int, most: int, name: str) -> None:
    """What is no number at all (a list by layers, null) has a meaning for some model types: mlx-lm judges it."""
    value = part.get(key)
    if value is None or isinstance(value, list | dict):
        return
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{name}: {key!r} is {value!r}, not a whole number from {least} to {most:,}")


def _check_rope_theta(part: Mapping[str, Any], name: str) -> None:
    """A wrong one would be found only in the first forward."""
    value = part.get("rope_theta")
    if value is None or isinstance(value, dict):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name}: 'rope_theta' is {value!r}, not a number above 0")


def _check_end_of_text(part: Mapping[str, Any], name: str) -> None:
    """One id, several, or none."""
    value = part.get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ConfigError(f"{name}: 'eos_token_id' is {value!r}, not a token id or a list of token ids")


def _check_model_type(config: Mapping[str, Any], name: str) -> None:
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(f"{name}: 'model_type' is {model_type!r}, not a name: is this a language model's config?")
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(each, str) for each in architectures):
        raise ConfigError(f"{name}: 'architectures' is {architectures!r}, not a list of names")
    try:
        _get_classes({"model_type": model_type, "architectures": architectures})
    except (ValueError, AttributeError):  # AttributeError: a module of mlx-lm that is no model
        raise UnsupportedModelError(
            f"{name}: this mlx-lm has no model type {model_type!r}; a newer one may (pip install -U mlx-lm)"
        ) from None
