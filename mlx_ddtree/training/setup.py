"""A fresh drafter for a target, and drafters as folders in the public DFlash layout."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.config import DFlash2Config, DrafterConfig, default_target_layer_ids
from mlx_ddtree.drafter.dflash2 import DFlash2Drafter
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.tensor_names import public_name
from mlx_ddtree.errors import ConfigError, OptionError, UnsupportedModelError
from mlx_ddtree.files.replace import replacing
from mlx_ddtree.pair import check_pair, inherit_scales
from mlx_ddtree.target import Target, TreeTarget


def require_dense(target: Target) -> TreeTarget:
    """Only targets with an adapter have features to learn from."""
    if not isinstance(target, TreeTarget):
        raise UnsupportedModelError(f"model type {target.model_type!r} has no adapter here, so no drafter can learn it")
    return target


def dflash2_shape(target: TreeTarget, selector_rank: int | None = None) -> DFlash2Config:
    """DFlash 2's published sizes, as far as the target's allow them."""
    shape = DFlash2Config(selector_top_k=min(DFlash2Config.selector_top_k, target.vocab_size))
    if target.hidden_size % shape.conv_group_size:
        raise OptionError(f"--dflash2 needs a hidden size in groups of {shape.conv_group_size}: {target.hidden_size}")
    return shape if selector_rank is None else replace(shape, selector_rank=selector_rank)


def default_config(
    target: TreeTarget,
    mask_token_id: int,
    *,
    layers: int = 5,
    taps: int = 5,
    block_size: int = 16,
    dflash2: DFlash2Config | None = None,
) -> DrafterConfig:
    """A drafter with the target's own widths, heads and RoPE."""
    args = target.args
    tap_count = min(taps, target.num_layers - 2)
    if layers < 1 or tap_count < 1 or block_size < 2:
        raise OptionError(f"a drafter needs layers, taps and a block of 2 or more; got {layers}, {taps}, {block_size}")
    heads = args.num_attention_heads
    ids = sorted(set(default_target_layer_ids(target.num_layers, tap_count)))
    return DrafterConfig(
        hidden_size=target.hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=args.num_key_value_heads or heads,
        head_dim=getattr(args, "head_dim", None) or target.hidden_size // heads,
        intermediate_size=args.intermediate_size,
        vocab_size=target.vocab_size,
        rms_norm_eps=args.rms_norm_eps,
        max_position_embeddings=getattr(args, "max_position_embeddings", None) or 40960,
        rope_theta=getattr(args, "rope_theta", 1e4),  # gemma4 has one a kind of layer
        rope_scaling=getattr(args, "rope_scaling", None),
        rope_traditional=getattr(args, "rope_traditional", False),
        attention_bias=False,
        block_size=block_size,
        mask_token_id=mask_token_id,
        target_layer_ids=tuple(ids),
        num_target_layers=target.num_layers,
        windows=(None,) * layers,
        causal=(False,) * layers,
        dflash2=dflash2,
    )


def new_drafter(config: DrafterConfig, target: TreeTarget, seed: int) -> DFlashDrafter:
    """Random float32 weights, a function of the seed; the final norm is the target's.

    The drafter speaks through the target's head, which expects rows of that norm's scale: after 60
    to 80 steps the demo pair's validation loss was 0.1 lower than with ones (three seeds of three).
    """
    mx.random.seed(seed)
    drafter = make_neutral(config)
    inherit_scales(target, drafter)
    drafter.norm.weight = target.anatomy.norm_gains
    mx.eval(drafter.parameters())
    return drafter


def make_neutral(config: DrafterConfig) -> DFlashDrafter:
    """Random weights, but those of DFlash 2's parts change nothing until they are trained."""
    drafter = make_drafter(config, len(config.target_layer_ids or ()))
    if isinstance(drafter, DFlash2Drafter):
        for layer in drafter.layers:
            for conv in (layer.attention_conv, layer.mlp_conv):
                conv.kernel_projection.weight = mx.zeros_like(conv.kernel_projection.weight)
        successors = drafter.candidate_selector.successor_codebook
        successors.weight = mx.zeros_like(successors.weight)  # of the three factors, one: the others give it a gradient
    return drafter


def start_from(
    folder: Path, target: TreeTarget, block_size: int | None = None, dflash2: DFlash2Config | None = None
) -> DFlashDrafter:
    """An existing drafter in float32, to train on; its own block size unless another is given.

    dflash2: what a v1 drafter gets in addition; it drafts as before until that is trained.
    """
    drafter = load_drafter(folder)
    if drafter.config.quantization is not None:
        raise ConfigError(f"the drafter in {folder} is quantised and cannot be trained; start from its 16-bit original")
    refuse_untrainable(drafter.config, folder)
    taps = check_pair(target, drafter)
    inherit_scales(target, drafter)
    drafter.config = replace(
        drafter.config,
        target_layer_ids=taps,
        num_target_layers=target.num_layers,
        vocab_size=target.vocab_size,
        block_size=block_size or drafter.config.block_size,
    )
    if dflash2 is not None and drafter.config.dflash2 is None:
        v1 = drafter
        drafter = make_neutral(replace(v1.config, dflash2=dflash2))
        drafter.load_weights(list(flat(v1.parameters()).items()), strict=False)
    drafter.set_dtype(mx.float32)
    drafter.train()
    mx.eval(drafter.parameters())
    return drafter


def refuse_untrainable(config: DrafterConfig, folder: Path) -> None:
    """Layouts that decoding knows and training does not."""
    only = DrafterConfig.__dataclass_fields__
    usual = ("layers", "logits_start", "markov", "confidence", "domino", "log_snr", "own_embedding", "own_head")
    for name in usual:
        value = getattr(config, name)
        if value != only[name].default:
            raise ConfigError(
                f"the drafter in {folder} cannot be trained here: only v1's and DFlash 2's can, and {name} is {value!r}"
            )


def flat(tree: Any) -> dict[str, mx.array]:
    """Nested parameters or optimizer state -> {'layers.0.mlp.up_proj.weight': array, ...}."""
    return dict(tree_flatten(tree))


def save_drafter(drafter: DFlashDrafter, folder: Path, scales: mx.array | None = None) -> None:
    """Write config.json and model.safetensors (bfloat16) under the public names; `load_drafter` reads them back.

    scales: (taps * D,) what the drafter's features were divided by; the file's fc divides by itself.

    Each file is replaced as a whole, so a folder that held a drafter holds one whenever the program is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {public_name(name): value for name, value in flat(drafter.parameters()).items()}
    if scales is not None:
        weights["fc.weight"] = weights["fc.weight"] / scales
    weights = {name: value.astype(mx.bfloat16) for name, value in weights.items()}
    config = json.dumps(public_config(drafter.config), indent=2) + "\n"
    with replacing(folder / "model.safetensors") as file:
        mx.save_safetensors(file, weights, metadata={"format": "mlx"})
    with replacing(folder / "config.json") as file:
        file.write(config.encode("utf-8"))


def public_config(config: DrafterConfig) -> dict[str, Any]:
    """The config.json of a DFlash drafter, as published checkpoints write it."""
    taps = list(config.target_layer_ids or ())
    full = all(window is None for window in config.windows)
    added = {} if config.dflash2 is None else {"block_size": config.block_size, **_said(config.dflash2)}
    said = {
        "architectures": ["DFlash2DraftModel" if added else "DFlashDraftModel"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dflash_config": {"mask_token_id": config.mask_token_id, "target_layer_ids": taps, **added},
        "layer_types": ["full_attention" if w is None else "sliding_attention" for w in config.windows],
        "sliding_windows": None if full else [window or 0 for window in config.windows],
        "interleaved": config.rope_traditional,
        "final_logit_softcapping": config.logit_softcap,
        "output_multiplier": config.logit_scale if config.logit_scale != 1.0 else None,
        "embed_scale": config.embed_scale if config.embed_scale != 1.0 else None,
        **_causality(config),
    }
    same = (
        "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size"
        " rms_norm_eps max_position_embeddings rope_theta rope_scaling attention_bias block_size num_target_layers"
    )
    said |= {name: getattr(config, name) for name in same.split()}
    return {key: value for key, value in said.items() if value is not None}


def _said(shape: DFlash2Config) -> dict[str, int]:
    """DFlash 2's sizes, as far as there is something to say."""
    return {key: value for key, value in asdict(shape).items() if value is not None}


def _causality(config: DrafterConfig) -> dict[str, bool]:
    """Nothing where the files' rule holds (sliding layers are causal), else one word for all layers."""
    if config.causal == tuple(window is not None for window in config.windows):
        return {}
    if len(set(config.causal)) > 1:
        raise ConfigError(f"causality {config.causal} of layers with windows {config.windows} has no public form")
    return {"causal": config.causal[0]}
