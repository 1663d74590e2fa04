"""What is found of a kernel on this machine, and what makes it worth using."""

from __future__ import annotations

from dataclasses import dataclass, field

FASTER = 0.98
"""A kernel must bring a verification, or its own calls, down to this share of their time, or stay unused."""
WRONG = 1e9
"""In place of a kernel's error where it raised something, or gave no number."""


@dataclass
class Finding:
    """What was found of one kernel for the loaded pair.

    error: largest difference from the reference, relative to the reference's largest value; None: the model never
        called it, or it does not run.
    agrees: whether that is within rounding.
    speedup: the time of the calls that it would take over by MLX over its own, by rows; of the finding 'together', that
        of whole verifications.
    """

    name: str
    error: float | None = None
    agrees: bool = False
    speedup: dict[int, float] = field(default_factory=dict)
