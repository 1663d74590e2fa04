"""Targets: mlx-lm models that verify draft trees."""

from __future__ import annotations

import mlx.nn as nn

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.anatomy import text_of
from mlx_ddtree.target.plain import PlainTarget
from mlx_ddtree.target.self_test import why_no_trees

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
"""mlx-lm's model files that were looked at one by one; any other is tried when it is loaded (target/self_test.py)."""


def make_target(model: nn.Module) -> Target:
    """The adapter for a loaded mlx-lm model.

    Families are told by the file that the model's class comes from: mlx-lm maps many a config's model_type
    (minimax_m2, mistral, kimi_k2, ...) to the file of another.
    """
    if family_of(model) in TREE_FAMILIES:
        return TreeTarget(model)
    try:
        target = TreeTarget(model, own_head=True)
    except UnsupportedModelError as error:
        return PlainTarget(model, str(error))
    reason = why_no_trees(target)
    return target if reason is None else PlainTarget(model, reason)


def family_of(model: nn.Module) -> str:
    """The name of mlx-lm's file that a model's class comes from."""
    return type(model).__module__.removeprefix("mlx_lm.models.")


__all__ = ["TREE_FAMILIES", "PlainTarget", "Target", "TreeTarget", "family_of", "make_target", "text_of"]
