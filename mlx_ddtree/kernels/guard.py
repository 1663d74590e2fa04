"""Kernels that cannot end a run: where one fails, its reference computes the same from the same arguments.

A kernel is compiled when a text first meets a variant of it, hours into a process perhaps.  Whatever the compiler or
the driver raises then, the call that met it is done again by MLX's operations, so that its round goes on with the same
tokens, and so are all later ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mlx_ddtree.kernels.gated_delta import DeltaKernels


class Guard:
    """The kernels of one choice that have failed since it was made.

    failed: their names.
    """

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def over(self, name: str, kernel: Any, reference: Any) -> Any:
        """`kernel` as long as it runs, `reference` from its first failure on.

        name: of the kernel in the warning.
        kernel, reference: functions of the same arguments, or the DeltaKernels of both.
        """
        if isinstance(kernel, DeltaKernels):
            names = [part for part in vars(kernel) if callable(getattr(kernel, part))]
            return replace(kernel, **{n: self.over(name, getattr(kernel, n), getattr(reference, n)) for n in names})
        return self._function(name, kernel, reference)

    def _function(self, name: str, kernel: Callable[..., Any], reference: Callable[..., Any]) -> Callable[..., Any]:
        failed = self.failed

        def guarded(*args: Any, **how: Any) -> Any:
            if name not in failed:
                try:
                    return kernel(*args, **how)
                except Exception as error:  # whatever the compiler or the driver raises
                    if gpu_failed(error):  # then the arguments may be worth nothing either
                        raise
                    failed.add(name)
                    warn_of_failure(name, error)
            return reference(*args, **how)

        return guarded


def warn_of_failure(name: str, error: Exception) -> None:
    """One line for a kernel that cannot run here; what a compiler says is often long."""
    logging.getLogger(__name__).warning("kernel %s cannot run here and is not used: %s", name, first_line(error))


def gpu_failed(error: Exception) -> bool:
    """Whether MLX reports that work has failed on the GPU itself, in a command buffer that it had accepted.

    What is raised before that, by a compiler or over a launch's sizes, has other words.
    """
    return isinstance(error, RuntimeError) and "Command buffer execution failed" in str(error)


def first_line(error: Exception) -> str:
    """What went wrong, without the rest of a compiler's report."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
