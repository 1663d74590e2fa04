"""A pair's folders as every program can load them: computed in one type, and found under a repository's name too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_ddtree.hub.fetch import DRAFTER_FILES, fetch
from mlx_ddtree.hub.load_pair import drafter_name
from mlx_ddtree.hub.load_target import fetch_target
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.untrusted import read_json

HUB_NAME = "race/drafter"
HALF_TYPES = (mx.bfloat16, mx.float16)


@dataclass(frozen=True)
class Folders:
    """Where a pair lies for the race.

    names: arguments of `mlx_ddtree.load`, with which the pair was asked for.
    target, drafter: folders with the weights that every program computes with.
    cache: a Hugging Face cache that holds the drafter as the repository HUB_NAME.
    """

    names: dict[str, Any]
    target: Path
    drafter: Path
    cache: Path

    @property
    def block_size(self) -> int:
        """Tokens of the block that the drafter was trained for, root included."""
        config = read_json(self.drafter / "config.json")
        size = config.get("block_size") or config.get("dflash_config", {}).get("block_size") or 16
        return int(size)

    def as_request(self) -> dict[str, Any]:
        """What an adapter's `load` is given."""
        return {"target": str(self.target), "drafter": str(self.drafter), "hub": HUB_NAME, "names": self.names}


def make_folders(
    into: Path,
    target: str | None,
    drafter: str | None,
    revision: str | None = None,
    draft_revision: str | None = None,
) -> Folders:
    """Fetch the pair and lay it out in `into`, an empty folder.

    On the CPU backend 16-bit weights are written as fp32, which `mlx_ddtree.load` computes in there, too: 16-bit
    products are several times slower, and round differently.  Elsewhere, and for quantised targets, files are linked.

    Raises ConfigError and MlxDdtreeError for what cannot be fetched, and PairError without a drafter.
    """
    target_folder = DEMO / "target" if target is None else fetch_target(target, revision)
    drafter_folder = fetch(drafter_name(target, drafter), draft_revision, DRAFTER_FILES)
    is_quantised = "quantization" in read_json(target_folder / "config.json")
    widen = mx.default_device() == mx.cpu and not is_quantised
    snapshot = into / "cache" / f"models--{HUB_NAME.replace('/', '--')}" / "snapshots" / ("0" * 40)
    copies = {target_folder.resolve(): into / "target", drafter_folder.resolve(): snapshot}
    for source, folder in copies.items():
        _copy(source, folder, widen)
    references = snapshot.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text(snapshot.name, encoding="utf-8")
    names = {"target": target, "draft": drafter, "revision": revision, "draft_revision": draft_revision}
    return Folders(names, into / "target", snapshot, into / "cache")


def _copy(source: Path, folder: Path, widen: bool) -> None:
    """Link a model's files, or write its weights as fp32."""
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if widen and file.suffix == ".safetensors":
            _widen_weights(file, folder / file.name)
        elif widen and file.name == "config.json":
            config = read_json(file) | {"torch_dtype": "float32", "dtype": "float32"}
            (folder / file.name).write_text(json.dumps(config), encoding="utf-8")
        else:
            (folder / file.name).symlink_to(file.resolve())


def _widen_weights(source: Path, file: Path) -> None:
    """Write a file of weights with its 16-bit tensors as fp32."""
    weights = mx.load(str(source))
    assert isinstance(weights, dict)
    wide = {name: w.astype(mx.float32) if w.dtype in HALF_TYPES else w for name, w in weights.items()}
    mx.save_safetensors(str(file), wide, {"format": "mlx"})
