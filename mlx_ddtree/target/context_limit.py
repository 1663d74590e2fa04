"""How many positions a model was made for, as its config says it."""

from __future__ import annotations

import math
from typing import Any

STATED = ("max_position_embeddings", "n_positions", "model_max_length")
"""What configs call the number of positions."""


def context_limit(args: Any) -> int | None:
    """Positions that a model was made for; None where its config does not say.

    args: mlx-lm's arguments of the model, with one of STATED, and rope_scaling or rope_parameters.  A table of learned
    positions (GPT-2) has so many rows and no more.

    Scaled rotary embeddings (YaRN, linear, dynamic NTK) reach `factor` times the positions that they were trained for
    before, original_max_position_embeddings.  Public configs disagree on whether max_position_embeddings has been
    multiplied already, so the larger number counts: a prompt is refused only where both readings refuse it.
    """
    stated: int | None = next((said for name in STATED if (said := getattr(args, name, None)) is not None), None)
    if stated is None:
        return None
    scaling = getattr(args, "rope_scaling", None) or getattr(args, "rope_parameters", None) or {}
    if not isinstance(scaling, dict):
        return stated
    original = _positive(scaling.get("original_max_position_embeddings")) or stated
    factor = _positive(scaling.get("factor")) or 1.0
    return max(stated, int(original * factor))


def _positive(value: Any) -> float | None:
    """A finite number above 0, or None for anything else that a config may hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
