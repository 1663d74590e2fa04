"""The ways to answer that a run compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree.build import MAX_BUDGET

if TYPE_CHECKING:  # a command line is read without MLX
    from mlx_ddtree.pair import Pair

Size = int | Literal["auto"]
STOCK = "mlx_lm"
"""Stock mlx_lm.stream_generate, the baseline of every run."""
LOOKUP = "lookup auto"
"""What a target without a drafter does: trees of copies, whose sizes are chosen every round."""
METHODS = ("ar", "lookup", "dflash", "ddtree")
BLOCKS: tuple[Size, ...] = (4, 5, 6, 8, 12, 16, "auto")
BUDGETS: tuple[Size, ...] = (4, 6, 8, 12, 16, 32, 64, "auto")
PUBLISHED_BUDGETS: tuple[Size, ...] = (16, 32, 64, 128, 256, 512, 1024, "auto")


def make_settings(
    pair: Pair, methods: Sequence[str], blocks: Sequence[Size] | None, budgets: Sequence[Size]
) -> dict[str, dict[str, Any]]:
    """{name: options of stream_generate}, the baseline first.  Raises OptionError.

    blocks: of 'dflash'; None is the size that the drafter was trained with, and auto.
    budgets: of 'ddtree'.

    Without a drafter 'dflash' and 'ddtree' have no settings.
    """
    _check_names(methods, budgets)
    trained = pair.block_size
    settings: dict[str, dict[str, Any]] = {STOCK: {}}
    if "ar" in methods:
        settings["ar"] = {"method": "ar"}
    if "lookup" in methods and pair.target.supports_trees:
        settings[LOOKUP] = {"method": "ddtree", "tree_budget": "auto"}
    if "dflash" in methods and pair.drafter is not None:
        for size in (trained, "auto") if blocks is None else blocks:
            if size == "auto":
                settings["dflash auto"] = {"method": "dflash", "block_size": None}
            elif 2 <= size <= trained:
                settings[f"dflash {size}"] = {"method": "dflash", "block_size": size}
    if "ddtree" in methods and pair.drafter is not None:
        for budget in budgets:
            settings[f"ddtree {budget}"] = {"method": "ddtree", "tree_budget": budget}
    return settings


def _check_names(methods: Sequence[str], budgets: Sequence[Size]) -> None:
    """Raises OptionError for a method that is not known and a tree that is too large."""
    for budget in budgets:
        if budget != "auto" and not 1 <= budget <= MAX_BUDGET:
            raise OptionError(f"tree budget {budget} is out of range: 1 to {MAX_BUDGET} nodes, or auto")
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise OptionError(f"unknown method {min(unknown)!r}; choose from {', '.join(METHODS)}")


def method_of(name: str) -> str:
    return name.split(maxsplit=1)[0]


def size_of(name: str) -> int | None:
    """The size in a setting's name; None for settings without a fixed one."""
    size = name.partition(" ")[2]
    return int(size) if size.isdigit() else None
