"""Targets: mlx-lm models that verify draft trees."""

from __future__ import annotations

import mlx.nn as nn

from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.plain import PlainTarget

Target = TreeTarget | PlainTarget

TREE_FAMILIES = (
    "deepseek_v3",
    "gemma4",
    "gemma4_text",
    "gpt_oss",
    "kimi_k25",
    "llama",
    "minimax",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_moe",
    "qwen3_next",
)
"""mlx-lm model types that pass the losslessness battery (tests/target); every other type decodes plainly."""


def make_target(model: nn.Module) -> Target:
    """The adapter for a loaded mlx-lm model."""
    return TreeTarget(model) if model.args.model_type in TREE_FAMILIES else PlainTarget(model)


__all__ = ["TREE_FAMILIES", "PlainTarget", "Target", "TreeTarget", "make_target"]
