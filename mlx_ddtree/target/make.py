"""From a loaded model of mlx-lm to a target: it is asked (asking.py) and tried (self_test.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mlx.nn as nn

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.paths import PathTarget
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

How = Literal["rows", "paths", "plain"]


@dataclass(frozen=True)
class Verdict:
    """What a model's test has found.

    how: 'rows', a tree's rows go through the model together; 'paths', each of its paths does; 'plain', neither.
    why: what is against the better ways.
    """

    how: How
    why: str = ""


def make_target(model: nn.Module, verdict: Verdict | None = None) -> Target:
    """The adapter for a loaded mlx-lm model.

    verdict: what its test has found before; None: it is tested now, about ten forwards of a few rows for each way.
    """
    if verdict is not None:
        return _as_found(model, verdict)
    # 1. Ask the model all that is asked at load.
    try:
        target = TreeTarget(model)
    except UnsupportedModelError as error:
        return PlainTarget(model, str(error))
    # 2. Families that were looked at, and passed the whole battery of tests, verify a tree's rows together.
    if family_of(model) in TREE_FAMILIES:
        return target
    # 3. Any other is tried: a small tree against its paths alone.
    why = why_no_trees(target)
    if why is None:
        return target
    # 4. Where that fails, every path of a tree through the whole model; a chain is one path.
    by_paths = PathTarget(model, why)
    if why_no_trees(by_paths) is None:
        return by_paths
    # 5. Where that fails too, plain decoding, which says why.
    return PlainTarget(model, why)


def _as_found(model: nn.Module, verdict: Verdict) -> Target:
    """The adapter that a model's test has led to before."""
    if verdict.how == "plain":
        return PlainTarget(model, verdict.why)
    return PathTarget(model, verdict.why) if verdict.how == "paths" else TreeTarget(model)


def verdict_of(target: Target) -> Verdict:
    """What a target's test has found."""
    if isinstance(target, PlainTarget):
        return Verdict("plain", target.why or "")
    return Verdict("paths", target.why) if isinstance(target, PathTarget) else Verdict("rows")


def family_of(model: nn.Module) -> str:
    """The name of mlx-lm's file that a model's class comes from.

    mlx-lm maps many a config's model_type (minimax_m2, mistral, kimi_k2, ...) to the file of another.
    """
    return type(model).__module__.removeprefix("mlx_lm.models.")
