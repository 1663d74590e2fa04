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


def make_target(model: nn.Module, known_reason: str | None = None, tried: bool = False) -> Target:
    """The adapter for a loaded mlx-lm model.

    Families are told by the file that the model's class comes from: mlx-lm maps many a config's model_type
    (minimax_m2, mistral, kimi_k2, ...) to the file of another.

    known_reason, tried: what an earlier test of this model has found, so that it need not be made again.
    """
    if family_of(model) in TREE_FAMILIES:
        return TreeTarget(model)
    reason = known_reason
    if reason is None:
        target, reason = try_trees(model, tried)
        if target is not None:
            return target
    return PlainTarget(model, reason)


def try_trees(model: nn.Module, tried: bool = False) -> tuple[TreeTarget | None, str | None]:
    """A target that verifies trees, or the reason why this model makes none.

    tried: whether a test has been passed before.
    """
    try:
        target = TreeTarget(model, own_head=True)
    except UnsupportedModelError as error:
        return None, str(error)
    reason = None if tried else why_no_trees(target)
    return (target, None) if reason is None else (None, reason)


def family_of(model: nn.Module) -> str:
    """The name of mlx-lm's file that a model's class comes from."""
    return type(model).__module__.removeprefix("mlx_lm.models.")


__all__ = ["TREE_FAMILIES", "PlainTarget", "Target", "TreeTarget", "family_of", "make_target", "text_of"]
