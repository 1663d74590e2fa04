"""Targets: mlx-lm models that verify draft trees."""

from __future__ import annotations

import mlx.nn as nn

from mlx_ddtree.target.dense import DenseTarget
from mlx_ddtree.target.plain import PlainTarget

Target = DenseTarget | PlainTarget

ADAPTERS = {"qwen3": DenseTarget, "qwen3_moe": DenseTarget, "llama": DenseTarget}
"""mlx-lm model_type -> adapter; every other type decodes plainly."""


def make_target(model: nn.Module) -> Target:
    """The adapter for a loaded mlx-lm model."""
    return ADAPTERS.get(model.args.model_type, PlainTarget)(model)


__all__ = ["ADAPTERS", "DenseTarget", "PlainTarget", "Target", "make_target"]
