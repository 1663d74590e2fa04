"""What verify_qmm should take against MLX's products, by chip and rows: an estimate; Markdown for docs/kernels_qmm.md.

Usage: python studies/kernels/qmm_expectations.py [--columns 17408] [--depth 5120]

A product takes the longer of two times: reading the matrix once for each pass, and the issue slots of its instructions
(cores x 4 x 32 lanes, one a cycle).  Slots a weight of 4 bits:

* verify_qmm: 4.5 to take it out of its word, counted in what clang makes of metal/verify_tile.h with the throughputs that
  others have measured on M1 (a shift 4, the rest 1 a lane: 3/8 of a shift, half an `and`, half an `or`, a subtraction,
  a multiply-add); 10 for each 8 rows of products.
* MLX's tile of 32 rows: 40, from 0.51 ms on an M3 Max, as measured by others.
* MLX's vector kernel: on M3 and M4 12.7 a pass of five rows, from 0.32 ms for two passes on the same machine; on M1 and
  M2 a pass is a row, and is taken to be as fast as reading.

Nothing here was measured on our kernel.  Which one a text uses is measured on the machine (tuning/choose.py).
"""

from __future__ import annotations

import argparse
from math import ceil
from typing import NamedTuple

GROUP = 64
ROWS = (2, 4, 5, 6, 8, 12, 16, 24, 32)
TAKE_OUT, PRODUCTS = 4.5, 10.0
MLX_TILE, MLX_VECTOR = 40.0, 12.7
LANES = 128
"""Of a core."""
GIGA, MILLI = 1e9, 1e-3


class Chip(NamedTuple):
    """cores of its GPU; their clock in GHz; memory bandwidth in GB/s; rows of a pass of MLX's vector kernel, and rows
    from which MLX takes its tile."""

    name: str
    cores: int
    clock: float
    bandwidth: float
    together: int
    tile_from: int


CHIPS = (
    Chip("M1", 8, 1.28, 68, 1, 6),
    Chip("M1 Max", 32, 1.30, 400, 1, 6),
    Chip("M2", 10, 1.40, 100, 1, 6),
    Chip("M2 Max", 38, 1.40, 400, 1, 6),
    Chip("M3", 10, 1.38, 100, 5, 13),
    Chip("M3 Max", 40, 1.38, 400, 5, 13),
    Chip("M4", 10, 1.47, 120, 5, 13),
    Chip("M4 Pro", 20, 1.58, 273, 5, 13),
    Chip("M4 Max", 40, 1.58, 546, 5, 13),
)


def milliseconds(chip: Chip, weights: float, slots: float, passes: int = 1) -> float:
    """The longer of reading and computing, `passes` times."""
    read = weights * (0.5 + 4 / GROUP) / (chip.bandwidth * GIGA)
    computed = weights * slots / (chip.cores * LANES * chip.clock * GIGA)
    return passes * max(read, computed) / MILLI


def ours(chip: Chip, weights: float, rows: int) -> float:
    tile = 8 if rows <= 8 else 16 if rows <= 16 else 32
    return milliseconds(chip, weights, TAKE_OUT + PRODUCTS * tile / 8)


def mlx(chip: Chip, weights: float, rows: int) -> float:
    if rows >= chip.tile_from:
        return milliseconds(chip, weights, MLX_TILE)
    slots = 0.0 if chip.together == 1 else MLX_VECTOR
    return milliseconds(chip, weights, slots, ceil(rows / chip.together))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=17408)
    parser.add_argument("--depth", type=int, default=5120)
    args = parser.parse_args()
    weights = args.columns * args.depth
    print(
        f"{args.depth} to {args.columns}, 4 bits: verify_qmm's ms / MLX's ms; bold where verify_qmm should be ahead\n"
    )
    print("| chip | " + " | ".join(f"{rows} rows" for rows in ROWS) + " |")
    print("|---" * (len(ROWS) + 1) + "|")
    for chip in CHIPS:
        cells = []
        for rows in ROWS:
            mine, theirs = ours(chip, weights, rows), mlx(chip, weights, rows)
            cell = f"{mine:.2f} / {theirs:.2f}"
            cells.append(f"**{cell}**" if mine < 0.98 * theirs else cell)
        print(f"| {chip.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
