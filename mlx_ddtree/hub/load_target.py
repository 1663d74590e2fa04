"""A target alone: names or folders -> model, tokenizer and how they were loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_model, load_tokenizer

from mlx_ddtree.errors import ConfigError, MlxDdtreeError, OptionError, UnsupportedModelError, WeightsError, one_line
from mlx_ddtree.hub.adapter import adapter_folder, apply_adapter
from mlx_ddtree.hub.check_target import check_target_folder
from mlx_ddtree.hub.fetch import SMALL_TARGET_FILES, TARGET_FILES, commit_of, fetch
from mlx_ddtree.hub.foreign_code import TRUST, brings_tokenizer_code, check_model_code
from mlx_ddtree.hub.names import DEMO, local_folder
from mlx_ddtree.hub.verdicts import make_known_target
from mlx_ddtree.target import Target

load_lazily = partial(load_model, lazy=True)


@dataclass
class LoadedTarget:
    """A target, its tokenizer, and how it was loaded.

    notes: 'target' (its name), 'target_folder', 'target_revision', 'target_config', and 'adapter_folder' where an
        adapter was applied.
    """

    target: Target
    tokenizer: TokenizerWrapper
    notes: dict[str, Any] = field(default_factory=dict)


def look_at_target(name: str | None, revision: str | None) -> None:
    """Raise what is wrong with a target's name or local folder, before anything is fetched or read.

    None is the embedded one.  What a repository holds is seen when its files are here.
    """
    if name is None:
        if revision is not None:
            raise OptionError(f"the embedded pair has no revision {revision!r}")
        return
    if local_folder(name) is not None:
        check_target_folder(fetch_target(name, revision))


def try_target(name: str | None, revision: str | None, trust_remote_code: bool) -> None:
    """Raise what is wrong with a target, however deep; its weights are neither fetched nor read.

    For a load that fails for want of a drafter: who names a target that does not exist, or a broken one, should hear
    of that first.  A target that cannot be reached now is not wrong.
    """
    folder = None if name is None else local_folder(name)
    if folder is not None:
        check_model_code(folder, trust_remote_code)
        with _in_one_line(f"the target in {folder} cannot be loaded"):
            load_lazily(folder, trust_remote_code=trust_remote_code)
        read_tokenizer(folder, trust_remote_code)
    elif name is not None:
        try:
            check_target_folder(fetch(name, revision, SMALL_TARGET_FILES), weights=False)
        except (ConfigError, UnsupportedModelError):
            raise
        except MlxDdtreeError as error:
            logging.getLogger(__name__).info("%s: %s", name, error)


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
    read: Callable[..., tuple[Any, dict[str, Any]]] = load_lazily,
    adapt: Callable[[Any], Target] | None = None,
) -> LoadedTarget:
    """A target alone, through mlx-lm's own loaders; None is the embedded one.

    find: brings a repository's files, by name and revision.  adapt: makes a target of a model; None: hub/verdicts.py.
    read: makes the model, not evaluated, and its config of a folder; given `trust_remote_code` as well.

    Raises ConfigError, WeightsError and UnsupportedModelError, with what to do.
    """
    folder = DEMO / "target" if name is None else find(name, revision)
    check_target_folder(folder)
    adapter = None if adapter_path is None else adapter_folder(adapter_path)

    check_model_code(folder, trust_remote_code)
    with _in_one_line(f"the target in {folder} cannot be loaded"):
        model, config = read(folder, trust_remote_code=trust_remote_code)
    if adapter is not None:
        model = apply_adapter(model, adapter)
    tokenizer = read_tokenizer(folder, trust_remote_code, config.get("eos_token_id"))
    if len(tokenizer.get_vocab()) == 0:
        raise ConfigError(f"the tokenizer in {folder} knows no tokens: copy the model's tokenizer.json there")
    with _in_one_line(f"the target in {folder} cannot be loaded"):
        model.eval()
        compute_dtype(model, config)
        evaluate_by_layer(model)

    notes: dict[str, Any] = {
        "target": name or "embedded demo pair",
        "target_folder": str(folder),
        "target_revision": commit_of(folder),
        "target_config": config,
    }
    if adapter is not None:
        notes["adapter_folder"] = str(adapter.resolve())
    target = make_known_target(model, config) if adapt is None else adapt(model)
    return LoadedTarget(target, tokenizer, notes)


def read_tokenizer(folder: Path, trust_remote_code: bool, eos_token_ids: Any = None) -> TokenizerWrapper:
    """A folder's tokenizer; eos_token_ids: what its config says.

    Raises WeightsError where it cannot be loaded, ConfigError where that may be for want of code that is not trusted.
    """
    options = {"trust_remote_code": trust_remote_code}
    try:
        with _in_one_line(f"the tokenizer in {folder} cannot be loaded"):
            return load_tokenizer(folder, options, eos_token_ids=eos_token_ids)
    except WeightsError:
        if trust_remote_code or not brings_tokenizer_code(folder):
            raise
        raise ConfigError(f"the tokenizer in {folder} runs code of its own: {TRUST}") from None


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Whatever mlx-lm, transformers and MLX raise on a damaged folder becomes one line that begins with `what`."""
    try:
        yield
    except MlxDdtreeError:
        raise
    except Exception as error:  # theirs are of any type: KeyError, AttributeError, RecursionError, Rust's panics
        raise WeightsError(f"{what}: {one_line(error)}") from error


def evaluate_by_layer(model: Any) -> None:
    """Read the weights.

    Where a rank keeps a part of each (distributed/shard.py), no more than a layer of what it does not keep is in
    memory at a time.
    """
    for layer in model.layers:
        mx.eval(layer.parameters())
    mx.eval(model.parameters())


def compute_dtype(model: Any, config: dict[str, Any]) -> None:
    """On the CPU backend 16-bit matrix products are several times slower than fp32: compute in fp32.  Lazy.

    Quantised weights stay as they are: their scales' type decides the activations' type.
    """
    if mx.default_device() == mx.cpu and "quantization" not in config:
        model.set_dtype(mx.float32)
