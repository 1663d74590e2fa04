"""Folders that bring Python code of their own, which runs only where the user trusts it."""

from __future__ import annotations

from pathlib import Path

from mlx_ddtree.errors import ConfigError
from mlx_ddtree.untrusted import read_json

TRUST = "read it, and give --trust-remote-code (trust_remote_code=True) if you trust it"


def check_model_code(folder: Path, trusted: bool) -> None:
    """Raise ConfigError where a target's config names code that builds the model, unless that is trusted."""
    file = read_json(folder / "config.json", finite=False).get("model_file")
    if file is not None and not trusted:
        raise ConfigError(f"the model in {folder} is built by code of its own ({str(file)[:80]}): {TRUST}")


def brings_tokenizer_code(folder: Path) -> bool:
    """Whether a folder's tokenizer has a class of its own.

    Where tokenizer.json is there too, transformers reads that without the class; its code stays unused.
    """
    file = folder / "tokenizer_config.json"
    if not file.exists():
        return False
    classes = read_json(file, finite=False).get("auto_map")
    return isinstance(classes, dict | list) and bool(classes)
