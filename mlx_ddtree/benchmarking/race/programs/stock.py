"""Stock mlx_lm.stream_generate, which every other program is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGES = ("mlx-lm",)


def load(folders: dict[str, str]) -> Any:
    from mlx_lm import load as load_model  # noqa: PLC0415  (MLX after the BLAS)

    return load_model(folders["target"])


def answer(loaded: Any, ask: dict[str, Any], tell: Callable[[list[int]], None]) -> None:
    import mlx.core as mx  # noqa: PLC0415
    from mlx_lm import stream_generate  # noqa: PLC0415
    from mlx_lm.sample_utils import make_sampler  # noqa: PLC0415

    model, tokenizer = loaded
    mx.random.seed(ask["seed"])
    sampler = make_sampler(ask["temp"])
    for response in stream_generate(model, tokenizer, ask["prompt"], max_tokens=ask["most"], sampler=sampler):
        tell([response.token])
