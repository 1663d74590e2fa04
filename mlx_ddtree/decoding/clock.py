"""Wall-clock time by stage, measured where the round waits anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

STAGES = ("prefill", "draft", "tree", "verify", "commit")


class Clock:
    """Seconds by stage.

    It adds no waits of its own: MLX runs lazily, so the copies that a commit asks for run with
    the next draft and are counted there.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += perf_counter() - start
