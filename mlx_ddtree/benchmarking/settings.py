"""The ways to answer that a run compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from mlx_ddtree.errors import OptionError, PairError
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree.build import MAX_BUDGET

Size = int | Literal["auto"]
STOCK = "mlx_lm"
"""Stock mlx_lm.stream_generate, the baseline of every run."""
METHODS = ("ar", "dflash", "ddtree")
BLOCKS: tuple[Size, ...] = (4, 5, 6, 8, 12, 16, "auto")
BUDGETS: tuple[Size, ...] = (4, 6, 8, 12, 16, 32, 64, "auto")
PUBLISHED_BUDGETS: tuple[Size, ...] = (16, 32, 64, 128, 256, 512, 1024, "auto")


def make_settings(
    pair: Pair, methods: Sequence[str], blocks: Sequence[Size] | None, budgets: Sequence[Size]
) -> dict[str, dict[str, Any]]:
    """{name: options of stream_generate}, the baseline first.

    blocks: of 'dflash'; None is the size that the drafter was trained with, and auto.
    budgets: of 'ddtree'.
    """
    if pair.drafter is None:
        raise PairError("this pair has no drafter, so there is nothing to compare: give --draft-model")
    trained = pair.drafter.config.block_size
    sizes = (trained, "auto") if blocks is None else [b for b in blocks if b == "auto" or 2 <= b <= trained]
    if wrong := [n for n in budgets if n != "auto" and not 1 <= n <= MAX_BUDGET]:
        raise OptionError(f"tree budget {wrong[0]} is out of range: 1 to {MAX_BUDGET} nodes, or auto")
    if unknown := set(methods) - set(METHODS):
        raise OptionError(f"unknown method {min(unknown)!r}; choose from {', '.join(METHODS)}")
    settings: dict[str, dict[str, Any]] = {STOCK: {}}
    if "ar" in methods:
        settings["ar"] = {"method": "ar"}
    if "dflash" in methods:
        settings |= {f"dflash {b}": {"method": "dflash", "block_size": None if b == "auto" else b} for b in sizes}
    if "ddtree" in methods:
        settings |= {f"ddtree {n}": {"method": "ddtree", "tree_budget": n} for n in budgets}
    return settings


def method_of(name: str) -> str:
    return name.split(maxsplit=1)[0]


def size_of(name: str) -> int | None:
    """Of a setting with a fixed size; None for the others."""
    size = name.partition(" ")[2]
    return int(size) if size.isdigit() else None
