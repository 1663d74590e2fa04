"""How tree_attention divides rows and keys over threadgroups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

MATRIX = 8
"""Rows of a simdgroup matrix; fewer rows go without matrices."""
SIMDGROUPS = 12
"""At most in a threadgroup of matrices.  Whatever a compiler needs, up to a lane's 128 registers, a core's 208 KB hold
13 simdgroups of it, so a pipeline always admits 12; docs/kernels_attention.md counts the registers."""
COLUMNS = 256
"""Columns of all rows that one lane's simdgroup holds, at most: 8 rows of 256 columns, 16 of 128, 32 of 64."""
FEW_SIMDGROUPS, RUN = 8, 8
"""Of few_rows_attention, as metal/few_rows_attention.h has them."""
THREADGROUPS = {"d": 160, "s": 80}
"""Wanted, about two for each core, by the last letter of a GPU's architecture: Ultra, Max."""
SMALLER = 40
"""The same for a Pro, and for the chip without a surname."""


@dataclass(frozen=True)
class Plan:
    """For `rows` rows (nodes x query heads) of each KV head.

    blocks: of 8 rows, in a simdgroup.  key_groups: simdgroups that share rows and divide a tile's keys.
    row_blocks: threadgroups that share a range of keys, because one cannot hold all rows; each reads it.
    split: keys in a range; splits: ranges.
    """

    rows: int
    few: bool
    simdgroups: int
    blocks: int
    key_groups: int
    row_blocks: int
    split: int
    splits: int


def threadgroups(architecture: str) -> int:
    """How many fill a GPU ("applegpu_g13s", ...)."""
    return THREADGROUPS.get(architecture[-1:], SMALLER) if architecture.startswith("applegpu") else THREADGROUPS["s"]


@lru_cache(maxsize=256)
def plan_launch(
    rows: int, heads: int, length: int, columns: int, itemsize: int, wanted: int, *, matrices: bool = False
) -> Plan:
    """For `length` keys of `columns` columns (the larger of D and Dv) for each of `heads` KV heads.

    wanted: threadgroups.  matrices: also for fewer than 8 rows.
    """
    if rows < MATRIX and not matrices:
        split, splits = _ranges(length, FEW_SIMDGROUPS * RUN, wanted // heads, 0)
        return Plan(rows, True, FEW_SIMDGROUPS, 1, 1, 1, split, splits)
    row_tiles = -(-rows // MATRIX)
    blocks = 1
    while blocks * SIMDGROUPS < row_tiles and 2 * blocks * columns <= COLUMNS:
        blocks *= 2
    row_blocks = -(-row_tiles // (blocks * SIMDGROUPS))
    row_groups = -(-row_tiles // (blocks * row_blocks))
    key_groups = 1 if row_groups > 2 else 4 if columns * itemsize <= 512 else 2  # a tile has 32 keys, or 16
    held = row_groups * blocks * MATRIX
    split, splits = _ranges(length, 32, wanted // (heads * row_blocks), 2 * held)
    return Plan(rows, False, row_groups * key_groups, blocks, key_groups, row_blocks, split, splits)


def _ranges(length: int, unit: int, most: int, least: int) -> tuple[int, int]:
    """Keys of a range, a multiple of `unit`, and how many ranges there are, `most` at most.

    At least `least` keys: a range leaves 4 bytes for each row and column, twice moved, and must have read as much.
    """
    units = -(-length // unit)
    each = max(-(-units // max(1, most)), -(-least // unit))
    return each * unit, -(-units // each)
