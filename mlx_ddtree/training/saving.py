"""Drafters as folders in the public layouts: config.json and model.safetensors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.config import DFlash2Config, DrafterConfig
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.tensor_names import public_name
from mlx_ddtree.errors import ConfigError
from mlx_ddtree.files.replace import replacing


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
    """The config.json of a drafter, as published checkpoints write it: in z-lab's form for v1 and DFlash 2, in
    SpecForge's for DSpark.  `block_size` counts a block's rows there."""
    taps = list(config.target_layer_ids or ())
    full = all(window is None for window in config.windows)
    rows = config.rows(config.block_size)
    added = {} if config.dflash2 is None else {"block_size": rows, **_said(config.dflash2)}
    if is_dspark(config):
        added = _said_of_heads(config)
    said = {
        "architectures": [_architecture(config)],
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
        " rms_norm_eps max_position_embeddings rope_theta rope_scaling attention_bias num_target_layers"
    )
    said |= {name: getattr(config, name) for name in same.split()} | {"block_size": rows}
    return {key: value for key, value in said.items() if value is not None}


def is_dspark(config: DrafterConfig) -> bool:
    """Whether the drafter predicts from its root's row, or has a head that only DSpark's have."""
    return config.markov is not None or config.confidence is not None or config.logits_start == 0


def _architecture(config: DrafterConfig) -> str:
    if config.dflash2 is not None:
        return "DFlash2DraftModel"
    return "DSparkDraftModel" if is_dspark(config) else "DFlashDraftModel"


def _said_of_heads(config: DrafterConfig) -> dict[str, Any]:
    """DSpark's keys, in SpecForge's form."""
    said: dict[str, Any] = {
        "projector_type": "dspark",
        "markov_rank": 0 if config.markov is None else config.markov.rank,
        "enable_confidence_head": config.confidence is not None,
    }
    if config.markov is not None:
        said["markov_head_type"] = config.markov.kind
    if config.confidence is not None:
        said["confidence_head_with_markov"] = config.confidence.with_markov
        said["confidence_temperatures"] = list(config.confidence.temperatures) or None
    if config.logits_start == 1:  # made of a v1 drafter
        said["sample_from_anchor"] = False
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
