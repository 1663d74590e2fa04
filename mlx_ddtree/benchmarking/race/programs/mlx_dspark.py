"""ARahim3's mlx-dspark with a DFlash drafter; written for 0.20.3.

Options: max_draft_tokens, the drafted tokens that are verified, root excluded.
The drafter is not quantised, as it is by default on a Mac, so that all programs run the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGES = ("mlx-dspark", "mlx-lm")


def load(folders: dict[str, str]) -> Any:
    from mlx_dspark import load_dflash, load_target  # noqa: PLC0415  (MLX after the BLAS)

    target, tokenizer = load_target(folders["target"], require_tap=True)
    drafter, _ = load_dflash(folders["drafter"], quantize=False)
    drafter.bind(target.model)
    return target, tokenizer, drafter


def answer(loaded: Any, ask: dict[str, Any], tell: Callable[[list[int]], None]) -> dict[str, Any]:
    """The program gives its tokens at the end, and says itself how long the prompt took."""
    from mlx_dspark import dflash_generate  # noqa: PLC0415

    target, tokenizer, drafter = loaded
    result = dflash_generate(
        target,
        tokenizer,
        drafter,
        prompt_ids=ask["prompt"],
        max_new_tokens=ask["most"],
        max_draft_tokens=ask["options"]["max_draft_tokens"],
        temperature=ask["temp"],
        seed=ask["seed"],
    )
    tell(result.token_ids)
    return {"first": result.prefill_seconds, "rounds": result.num_rounds}
