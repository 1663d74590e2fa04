"""A rank's own part of a target's weights, by mlx-lm's own sharding; nothing else of them stays in memory.

mlx-lm knows how to split each of its model types over ranks: tensor parallel (`Model.shard`: heads and channels of
every layer) or as a pipeline (`model.pipeline`: whole layers).  Weights are read from the checkpoint as they are
needed, a layer at a time, and only the rank's part of a layer is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.utils import load_model

from mlx_ddtree.distributed.shard_target import ShardTarget
from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.hub.fetch import SMALL_TARGET_FILES, fetch, read_weight_map
from mlx_ddtree.hub.load_target import LoadedTarget, fetch_target, load_target
from mlx_ddtree.hub.names import local_folder
from mlx_ddtree.target import TREE_FAMILIES, family_of, text_of

HEADS = ("n_kv_heads", "num_key_value_heads")
"""What mlx-lm's attention modules call their number of key-value heads."""


def load_shard(
    name: str | None,
    revision: str | None,
    trust_remote_code: bool,
    *,
    group: mx.distributed.Group,
    pipeline: bool,
    adapt: Callable[[nn.Module], ShardTarget],
) -> LoadedTarget:
    """This rank's part of a target.  Raises what `load_target` raises, and UnsupportedModelError."""
    return load_target(
        name,
        revision=revision,
        trust_remote_code=trust_remote_code,
        find=partial(fetch_stage, group) if pipeline else fetch_target,
        read=partial(read_shard, group=group, pipeline=pipeline),
        adapt=adapt,
    )


def read_shard(
    folder: Path, *, trust_remote_code: bool, group: mx.distributed.Group, pipeline: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """The model with this rank's weights, not read yet, and its config.

    Rank 0 keeps the whole LM head, the others none of it: all logits are rank 0's.
    """
    model, config = load_model(folder, lazy=True, strict=not pipeline, trust_remote_code=trust_remote_code)
    check_shardable(model, group.size(), pipeline)
    text = text_of(model)
    head = text.pop("lm_head", None)
    if pipeline:
        text.model.pipeline(group)
    else:
        repeat_kv_heads(text.model.layers, group.size())
        if head is not None:
            text.lm_head = nn.Linear(1, group.size(), bias=False)  # for `shard` to split, if it does
        try:
            model.shard(group)
        except ValueError as error:  # a width that does not divide, or a group of quantised weights
            raise UnsupportedModelError(
                f"{group.size()} ranks cannot share this model's layers evenly: use another number ({error})"
            ) from error
        text.pop("lm_head", None)
    if head is not None and group.rank() == 0:
        text.lm_head = head
    return model, config


def check_shardable(model: nn.Module, ranks: int, pipeline: bool) -> None:
    """Raise UnsupportedModelError, with what to do, where mlx-lm cannot split this model over so many ranks."""
    family = family_of(model)
    text = text_of(model)
    has_pipeline = hasattr(text.model, "pipeline")
    has_shard = hasattr(model, "shard")
    if family not in TREE_FAMILIES:
        raise UnsupportedModelError(f"model type {family!r} has no adapter here, so it runs on one machine only")
    if not has_pipeline and not has_shard:
        raise UnsupportedModelError(f"mlx-lm cannot split model type {family!r} over several machines")
    if pipeline and not has_pipeline:
        raise UnsupportedModelError(f"mlx-lm has no pipeline for model type {family!r}: leave out --pipeline")
    if not pipeline and not has_shard:
        raise UnsupportedModelError(f"mlx-lm cannot split layers of model type {family!r}: use --pipeline")
    if pipeline:
        if ranks > len(text.model.layers):
            raise UnsupportedModelError(f"{ranks} ranks are more than the {len(text.model.layers)} layers")
        return
    for count in _head_counts(text.args):
        if count % ranks and (ranks % count or family == "minimax"):
            raise UnsupportedModelError(
                f"{ranks} ranks cannot share {count} attention heads evenly: use another number"
            )


def _head_counts(args: Any) -> list[int]:
    """How many heads a model has: of queries, of keys, and those of gated delta layers."""
    names = ("num_attention_heads", "num_key_value_heads", "linear_num_key_heads", "linear_num_value_heads")
    counts = [getattr(args, name, None) for name in names]
    return [count for count in counts if count]


def repeat_kv_heads(layers: list[nn.Module], ranks: int) -> None:
    """Where ranks outnumber the key-value heads, several ranks get the same head.

    The outputs of the key and value projections are repeated, as mlx-lm does for qwen3_5 alone of its model types.
    """
    for layer in layers:
        for module in layer.modules():
            name = next((name for name in HEADS if "k_proj" in module and hasattr(module, name)), None)
            if name is None:
                continue
            heads = getattr(module, name)
            if ranks <= heads:
                continue
            for projection in (module.k_proj, module.v_proj):
                projection.update(tree_map(partial(_repeat_heads, heads, ranks // heads), projection.parameters()))
            setattr(module, name, ranks)


def _repeat_heads(heads: int, times: int, outputs: mx.array) -> mx.array:
    """Repeat the outputs of every head of a projection's weights: (heads * n, ...) -> (heads * times * n, ...)."""
    by_head = outputs.reshape(heads, -1, *outputs.shape[1:])
    return mx.repeat(by_head, times, axis=0).reshape(-1, *outputs.shape[1:])


def fetch_stage(group: mx.distributed.Group, name: str, revision: str | None) -> Path:
    """A repository's snapshot with those files of weights that hold something of this rank's layers."""
    folder = fetch(name, revision, SMALL_TARGET_FILES)
    weight_map = read_weight_map(folder)
    if local_folder(name) is not None or not weight_map:
        return fetch_target(name, revision)
    model, _ = load_model(folder, lazy=True, strict=False)
    check_shardable(model, group.size(), pipeline=True)
    text = text_of(model)
    text.model.pipeline(group)
    mine = set(range(text.model.start_idx, text.model.end_idx))
    files = stage_files(weight_map, mine)
    return fetch(name, revision, [*SMALL_TARGET_FILES, *sorted(files)])


def stage_files(weight_map: dict[str, str], layers: set[int]) -> set[str]:
    """Files with weights of `layers`, or of no layer: every stage has the embeddings and the last norm."""
    files = set()
    for name, file in weight_map.items():
        number = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
        if number is None or int(number[1]) in layers:
            files.add(file)
    return files
