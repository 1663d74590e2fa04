"""bstnxbt's dflash-mlx; written for 0.1.8.

Options: block_tokens, which counts the root, and verify_mode ('dflash', 'adaptive' or 'ddtree').
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGES = ("dflash-mlx", "mlx-lm")


def load(folders: dict[str, str]) -> Any:
    from dflash_mlx.runtime.bundle import load_runtime_bundle  # noqa: PLC0415  (MLX after the BLAS)

    return load_runtime_bundle(model_ref=folders["target"], draft_ref=folders["drafter"], draft_quant="none")


def answer(loaded: Any, ask: dict[str, Any], tell: Callable[[list[int]], None]) -> dict[str, Any]:
    from dflash_mlx.engine.events import SummaryEvent, TokenEvent  # noqa: PLC0415
    from dflash_mlx.runtime import stream_dflash_generate  # noqa: PLC0415
    from dflash_mlx.runtime.context import build_offline_runtime_context  # noqa: PLC0415

    if ask["temp"]:
        raise ValueError("this program has no temperature")
    options = ask["options"]
    stream = stream_dflash_generate(
        target_model=loaded.target_model,
        target_ops=loaded.target_ops,
        tokenizer=loaded.tokenizer,
        draft_model=loaded.draft_model,
        draft_backend=loaded.draft_backend,
        prompt_tokens_override=ask["prompt"],
        max_new_tokens=ask["most"],
        block_tokens=options["block_tokens"],
        stop_token_ids=ask["ends"],
        runtime_context=build_offline_runtime_context(verify_mode=options["verify_mode"]),
    )
    rounds = 0
    for event in stream:
        if isinstance(event, TokenEvent):
            tell([event.token_id])
        elif isinstance(event, SummaryEvent):
            if event.fallback_ar:
                raise RuntimeError(f"it decoded plainly: {event.fallback_reason}")
            rounds = event.cycles_completed
    return {"rounds": rounds}
