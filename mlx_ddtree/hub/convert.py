"""A public drafter to a folder of MLX weights, quantised or not: complete or not there at all."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import dequantize_model, make_shards, quantize_model, save_config

from mlx_ddtree.drafter.load_drafter import load_drafter, read_drafter_config
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.tensor_names import public_name
from mlx_ddtree.errors import ConfigError, MlxDdtreeError, OptionError
from mlx_ddtree.hub.card import DrafterCard, write_card
from mlx_ddtree.hub.fetch import DRAFTER_FILES, commit_of, fetch
from mlx_ddtree.hub.names import expand_user
from mlx_ddtree.hub.size import drafter_parameters, tensors, tree_bytes

KEPT_WHOLE = ("candidate_selector", "kernel_projection", "markov_head", "domino", "confidence_head", "log_snr_embed")
"""Parts of drafters that stay in 16 bits: tables of pairs are read a few rows at a time, so fewer bits save no time,
and what they and the convolutions' kernels give is small corrections."""
PAPERS = ["config.json", "README.md", "LICENSE*", "NOTICE*"]


@dataclass(frozen=True)
class Quantisation:
    """How weights are quantised, in mlx_lm.convert's terms; None is the mode's default."""

    bits: int | None = None
    group_size: int | None = None
    mode: str = "affine"


@dataclass(frozen=True)
class Converted:
    """What was written where."""

    output: str
    source: str
    revision: str | None
    target: str | None
    dtype: str
    quantization: dict[str, Any] | None
    parameters: int
    bytes: int
    bits_per_weight: float


def convert(
    source: str,
    output: str | Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    quantisation: Quantisation | None = None,
    dequantise: bool = False,
    target: str | None = None,
    name: str | None = None,
) -> Converted:
    """Write the drafter `source` (repository or folder, any layout that `load_drafter` reads) to the folder `output`.

    dtype: of weights that are not quantised; None keeps the stored one.
    target, name: for the model card: what it drafts for (default: as the registry or the source's card says), and
        what it will be called.

    Raises OptionError, ConfigError or WeightsError; then `output` is as it was.
    """
    output = expand_user(output)
    check_output(output)
    folder = fetch(source, revision, DRAFTER_FILES)
    refuse_target(source, read_drafter_config(folder))
    drafter = load_drafter(folder)
    config = change_weights(drafter, read_drafter_config(folder), dtype, quantisation, dequantise)
    with complete_or_not_at_all(output) as unfinished:
        save_weights(drafter, unfinished)
        save_config(config, unfinished / "config.json")
        written = load_drafter(unfinished)  # strict: what was written is a drafter
        card = DrafterCard(name or output.resolve().name, source, commit_of(folder), target, written, config)
        target = write_card(card, papers_of(source, folder), unfinished)
    return Converted(
        output=str(output),
        source=source,
        revision=card.revision,
        target=target,
        dtype=config["dtype"],
        quantization=config.get("quantization"),
        parameters=drafter_parameters(drafter),
        bytes=sum(file.stat().st_size for file in output.glob("*.safetensors")),
        bits_per_weight=round(8 * tree_bytes(drafter) / drafter_parameters(drafter), 3),
    )


def check_output(output: Path) -> None:
    """Nothing that exists is overwritten."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise OptionError(f"{output} exists and is not an empty folder; choose another --mlx-path or remove it")


@contextmanager
def complete_or_not_at_all(output: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `output` if the block ends well and vanishes otherwise."""
    output = output.resolve()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            unfinished = Path(scratch) / output.name
            unfinished.mkdir()
            yield unfinished
            unfinished.rename(output)
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError where the disk is full
        raise MlxDdtreeError(
            f"{output} cannot be written ({error}): is there space on the disk, and is that folder yours?"
        ) from error


def refuse_target(source: str, config: Mapping[str, Any]) -> None:
    """A language model given by mistake gets a better word than that its architecture is no drafter's."""
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith(("ForCausalLM", "ForConditionalGeneration")) and "dflash" not in architecture.lower():
        raise ConfigError(
            f"{source} is a language model ({architecture}), not a DFlash drafter; mlx_lm.convert converts those"
        )


def change_weights(
    drafter: DFlashDrafter,
    config: dict[str, Any],
    dtype: str | None,
    quantisation: Quantisation | None,
    dequantise: bool = False,
) -> dict[str, Any]:
    """Cast and quantise the drafter in place; its config.json afterwards."""
    quantised = drafter.config.quantization is not None
    if quantisation and (quantised or dequantise):
        raise OptionError("choose either -q or -d" if dequantise else "it is quantised already; -d undoes that")
    if dequantise:
        if not quantised:
            raise OptionError("the drafter is not quantised, so there is nothing to dequantise")
        dequantize_model(drafter)
        config = {k: v for k, v in config.items() if k not in ("quantization", "quantization_config")}
    if dtype is not None:
        drafter.set_dtype(getattr(mx, dtype))
    if quantisation:
        config = quantise_drafter(drafter, config, quantisation)
    stored = str(drafter.norm.weight.dtype).removeprefix("mlx.core.")
    # The torch code that `auto_map` names is not carried over.
    return {k: v for k, v in config.items() if k not in ("auto_map", "torch_dtype")} | {"dtype": stored}


def quantise_drafter(drafter: DFlashDrafter, config: dict[str, Any], how: Quantisation) -> dict[str, Any]:
    """Quantise its linear layers by mlx-lm's rules, in place; the config with 'quantization'."""

    def wanted(path: str, _: nn.Module) -> bool:
        return not any(part in path.split(".") for part in KEPT_WHOLE)

    try:
        with redirect_stdout(sys.stderr):  # mlx-lm's report; stdout is for results
            _, config = quantize_model(drafter, config, how.group_size, how.bits, how.mode, quant_predicate=wanted)
    except (ValueError, KeyError) as error:
        raise OptionError(f"MLX has no such quantisation: {error}") from None
    if not any(name.endswith(".scales") for name in tensors(drafter)):
        size = config["quantization"]["group_size"]
        raise OptionError(f"no layer of this drafter can be quantised in groups of {size}; choose a smaller one")
    return config


def save_weights(drafter: DFlashDrafter, folder: Path) -> None:
    """The tensors under their public names in files of mlx-lm's size, with an index as mlx-lm writes it."""
    shards = make_shards({public_name(name): value for name, value in tensors(drafter).items()})
    places: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        mx.save_safetensors(str(folder / file), shard, metadata={"format": "mlx"})
        places |= dict.fromkeys(shard, file)
    sizes = {"total_size": tree_bytes(drafter), "total_parameters": drafter_parameters(drafter)}
    index = {"metadata": sizes, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=4) + "\n", encoding="utf-8")


def papers_of(source: str, folder: Path) -> Path | None:
    """The folder with the source's model card and licence; None if they cannot be had now."""
    commit = commit_of(folder)
    if commit is None:
        return folder
    try:
        return fetch(source, commit, PAPERS)
    except MlxDdtreeError as error:
        logging.getLogger(__name__).warning("warning: the licence of %s is unknown: %s", source, error)
        return None
