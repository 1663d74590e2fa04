"""mlx_ddtree itself, in a worker like any other program.

Options: those of `mlx_ddtree.stream_generate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PACKAGES = ("mlx-lm",)


def load(folders: dict[str, Any]) -> Any:
    """The pair by the user's own names: it computes in the type of the folders that the others get."""
    from mlx_ddtree.distributed.load import load as load_pair  # noqa: PLC0415  (MLX after the BLAS)

    return load_pair(**folders["names"])


def answer(loaded: Any, ask: dict[str, Any], tell: Callable[[list[int]], None]) -> None:
    from mlx_ddtree.decoding.sampler import make_sampler  # noqa: PLC0415
    from mlx_ddtree.generation.stream import stream_generate  # noqa: PLC0415

    sampler = make_sampler(ask["temp"], seed=ask["seed"])
    for response in stream_generate(loaded, ask["prompt"], ask["most"], sampler=sampler, **ask["options"]):
        tell(response.tokens)
