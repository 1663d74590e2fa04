"""load(): names or folders -> a Pair."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_adapters, load_model, load_tokenizer

from mlx_ddtree.drafter.load import load_drafter, read_json
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import PairError, WeightsError
from mlx_ddtree.hub.fetch import DRAFTER_FILES, TARGET_FILES, commit_of, fetch, local_folder
from mlx_ddtree.hub.registry import find_drafter
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import Target, make_target

DEMO = files("mlx_ddtree") / "demo"
read_lazily = partial(load_model, lazy=True)


def load(
    target: str | None = None,
    draft: str | bool | None = None,
    *,
    revision: str | None = None,
    draft_revision: str | None = None,
    adapter_path: str | None = None,
    trust_remote_code: bool = False,
    kernels: str = "auto",
    draft_window: int | None = None,
) -> Pair:
    """Load a target and its drafter.

    target: a Hugging Face repository or a local folder; None is the embedded demo pair, offline.
    draft: likewise; None looks the target up among the public pairs; False loads no drafter.
    revision, draft_revision: branch, tag or commit of a repository.
    kernels: 'auto' uses Metal kernels where they agree with MLX's operations and make verifications faster on this
        machine, which is found out once; 'on' wherever they agree; 'off' never.  $MLX_DDTREE_KERNELS overrules it.
    draft_window: tokens that the drafter sees, at most, so that drafting does not slow down with the context; None is
        what the checkpoint was trained with.  The output is the same, only acceptance can change.

    Raises OptionError, PairError (no drafter known, or one that does not fit), ConfigError, WeightsError and
    UnsupportedModelError, with what to do.
    """

    def read() -> LoadedTarget:
        return load_target(target, revision=revision, adapter_path=adapter_path, trust_remote_code=trust_remote_code)

    return load_with(read, target, draft, draft_revision=draft_revision, kernels=kernels, draft_window=draft_window)


def load_with(
    read: Callable[[], LoadedTarget],
    target: str | None,
    draft: str | bool | None,
    *,
    draft_revision: str | None,
    kernels: str,
    draft_window: int | None,
) -> Pair:
    """The pair of a target that `read` loads; the rest as for `load`."""
    if target is not None:
        local_folder(target)
    drafter_name = None if draft is False else _drafter_name(target, draft)
    # The small one first: what is wrong with it should not wait for the target's download.
    drafter, notes = (None, {}) if drafter_name is None else _load_drafter(drafter_name, draft_revision)
    loaded = read()
    if drafter is not None:
        if drafter.config.quantization is None:
            # The drafter follows the target's arithmetic, whatever type it is stored in.
            drafter.set_dtype(loaded.target.embed(mx.array([[0]])).dtype)
        if draft_window is not None:
            drafter.limit_window(draft_window)
            notes["drafter_config"] = drafter.config.describe()
        mx.eval(drafter.parameters())
    return Pair(loaded.target, drafter, loaded.tokenizer, loaded.notes | notes, kernels)


@dataclass
class LoadedTarget:
    """A target, its tokenizer, and how it was loaded."""

    target: Target
    tokenizer: TokenizerWrapper
    notes: dict[str, Any] = field(default_factory=dict)


def fetch_target(name: str, revision: str | None) -> Path:
    """The folder of a target's files."""
    return fetch(name, revision, TARGET_FILES)


def load_target(
    name: str | None = None,
    *,
    revision: str | None = None,
    adapter_path: str | None = None,
    trust_remote_code: bool = False,
    find: Callable[[str, str | None], Path] = fetch_target,
    read: Callable[..., tuple[Any, dict[str, Any]]] = read_lazily,
    adapt: Callable[[Any], Target] = make_target,
) -> LoadedTarget:
    """A target alone, through mlx-lm's own loaders; None is the embedded one.

    find: brings a repository's files, by name and revision.  adapt: makes a target of a model.
    read: makes the model, not evaluated, and its config of a folder; given `trust_remote_code` as well.
    """
    folder = Path(str(DEMO / "target")) if name is None else find(name, revision)
    read_json(folder / "config.json")  # mlx-lm's own message for a missing one names no remedy
    try:
        model, config = read(folder, trust_remote_code=trust_remote_code)
        if adapter_path is not None:
            model = load_adapters(model, adapter_path)
        tokenizer = load_tokenizer(
            folder, {"trust_remote_code": trust_remote_code}, eos_token_ids=config.get("eos_token_id")
        )
        model.eval()
        compute_dtype(model, config)
        evaluate_by_layer(model)
    except (FileNotFoundError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"the target in {folder} cannot be loaded: {error}") from error
    notes = {
        "target": name or "embedded demo pair",
        "target_folder": str(folder),
        "target_revision": commit_of(folder),
        "target_config": config,
    }
    return LoadedTarget(adapt(model), tokenizer, notes)


def evaluate_by_layer(model: Any) -> None:
    """Read the weights.  Where a rank keeps a part of each (distributed/shard.py), no more than a layer of what it does
    not keep is in memory at a time."""
    for layer in model.layers:
        mx.eval(layer.parameters())
    mx.eval(model.parameters())


def compute_dtype(model: Any, config: dict[str, Any]) -> None:
    """On the CPU backend 16-bit matrix products are several times slower than fp32: compute in fp32.  Lazy.

    Quantised weights stay as they are: their scales' type decides the activations' type.
    """
    if mx.default_device() == mx.cpu and "quantization" not in config:
        model.set_dtype(mx.float32)


def _drafter_name(target: str | None, draft: str | bool | None) -> str | None:
    if isinstance(draft, str):
        return draft
    if target is None:
        return str(DEMO / "drafter")
    found = find_drafter(target)
    if found is None:
        raise PairError(
            f"no public drafter is known for {target!r}: name one (draft=... / --draft-model), train one "
            "(mlx_ddtree.train), or decode plainly (draft=False / --method ar)"
        )
    return found


def _load_drafter(name: str, revision: str | None) -> tuple[DFlashDrafter, dict[str, Any]]:
    """Unevaluated, and its notes."""
    folder = fetch(name, revision, DRAFTER_FILES)
    drafter = load_drafter(folder)
    notes = {
        "drafter": name,
        "drafter_folder": str(folder),
        "drafter_revision": commit_of(folder),
        "drafter_config": drafter.config.describe(),
    }
    logging.getLogger(__name__).info("drafter %s: %s", folder, notes["drafter_config"])
    return drafter, notes
