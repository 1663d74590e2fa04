"""z-lab's dflash, its MLX implementation; written for 0.1.0 of the package index.

Options: block_size, which counts the root.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGES = ("dflash", "mlx-lm")


def load(folders: dict[str, str]) -> Any:
    """The drafter comes by its repository's name, because this program asks the Hub's cache for it."""
    from dflash import model_mlx  # noqa: PLC0415  (MLX after the BLAS)

    model, tokenizer = model_mlx.load(folders["target"])
    return model, model_mlx.load_draft(folders["hub"]), tokenizer


def answer(loaded: Any, ask: dict[str, Any], tell: Callable[[list[int]], None]) -> None:
    import mlx.core as mx  # noqa: PLC0415
    from dflash import model_mlx  # noqa: PLC0415

    model, drafter, tokenizer = loaded
    mx.random.seed(ask["seed"])
    size = ask["options"]["block_size"]
    for response in model_mlx.stream_generate(
        model, drafter, tokenizer, ask["prompt"], size, max_tokens=ask["most"], temperature=ask["temp"]
    ):
        tell(response.tokens)
