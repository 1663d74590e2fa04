"""What rounds cost before they are measured: the shape of a verification's cost by rows, by class of machine.

The shapes are published throughputs of MLX's quantised products on Apple's chips, or drawn from single points of them
(docs/auto_budget.md names the sources), and this project's own timings on processors.  Only the shape is taken: a
pair's own seconds for one row, and whatever else was measured, give it its size.  The rounds of a text correct it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

SHAPES: dict[str, list[tuple[int, float]]] = {
    "M1/M2 4-bit": [
        (1, 1.0), (2, 1.05), (4, 1.9), (6, 2.9), (8, 3.6), (10, 4.5),
        (32, 4.6), (33, 9.0), (64, 9.1), (65, 13.5), (128, 18.0),
    ],
    "M3 4-bit": [
        (1, 1.0), (2, 1.0), (4, 1.28), (6, 2.0), (8, 2.5), (9, 3.1),
        (10, 3.9), (32, 4.0), (33, 7.8), (64, 7.9), (65, 11.7), (128, 15.5),
    ],
    "M4 4-bit": [
        (1, 1.0), (2, 0.99), (4, 1.43), (8, 2.84), (10, 4.5), (32, 4.5),
        (33, 8.8), (64, 8.9), (65, 13.2), (128, 17.5),
    ],
    "M5 4-bit": [
        (1, 1.0), (4, 1.1), (5, 1.15), (8, 1.5), (12, 1.9), (16, 2.0),
        (32, 2.1), (33, 3.0), (64, 3.1), (128, 5.0),
    ],
    "bf16, M1 to M4": [(1, 1.0), (2, 1.25), (16, 1.3), (64, 1.5), (65, 2.6), (128, 2.9)],
    "bf16, M5": [(1, 1.0), (16, 1.05), (64, 1.25), (128, 1.7)],
    "a processor": [(1, 1.0), (4, 1.6), (8, 1.9), (16, 2.6), (128, 14.0)],
    "a processor, quantised": [(1, 1.0), (128, 115.0)],
}  # fmt: skip
"""(rows, seconds in those of one row) of whole verifications, on straight lines in between."""
DRAFT_SHARE = 0.15
"""Seconds of a whole block's draft in steps of plain decoding: drafting took 13 % of published rounds."""
_CHIPS = {"13": "M1/M2", "14": "M1/M2", "15": "M3", "16": "M4"}
"""By the generation in a GPU's architecture; later ones have matrix units, as the M5's."""


def machine_class(architecture: str | None, quantised: bool) -> str:
    """The class whose shape is taken.

    architecture: of the GPU, as MLX names it ("applegpu_g15s"); None: a processor computes.
    quantised: whether weights are.
    """
    if architecture is None:
        return "a processor, quantised" if quantised else "a processor"
    chip = _CHIPS.get(architecture.partition("_g")[2][:2], "M5")
    if quantised:
        return f"{chip} 4-bit"
    return "bf16, M5" if chip == "M5" else "bf16, M1 to M4"


def guessed_seconds(kind: str, rows: Sequence[int], known: Mapping[int, float]) -> NDArray[np.float64]:
    """(len(rows),) seconds of verifications.

    kind: of `machine_class`.  known: measured seconds by rows, at least one; they are kept, and between them the shape
        is stretched by what it was off at its neighbours.
    """
    sizes, units = zip(*SHAPES[kind], strict=True)
    at = sorted(known)
    off = [known[n] / float(np.interp(n, sizes, units)) for n in at]
    return np.interp(rows, sizes, units) * np.interp(rows, at, off)
