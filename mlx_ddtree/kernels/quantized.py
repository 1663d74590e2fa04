"""Quantised matrix products of a verification's 1..32 rows, with every weight read once."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_ddtree.kernels.metal import Launch, MetalKernel, at_least_8, launch_on_metal

MAX_ROWS = 32
STRIP_COLUMNS = 16  # output columns of a simdgroup
_GROUPS = (32, 64, 128)
_BITS = (2, 3, 4, 5, 6, 8)
_DTYPES = (mx.float16, mx.bfloat16, mx.float32)

VERIFY_QMM = MetalKernel("verify_qmm", ("x", "weight", "scales", "biases", "size"), ("y",))

# The same product by MLX: x (M, K) -> (M, N).
quantized_matmul = partial(mx.quantized_matmul, transpose=True)


class Tile(NamedTuple):
    """What a threadgroup computes: `rows` (8, 16 or 32) times `width` simdgroups' columns, each column's sum
    by `chains` simdgroups."""

    rows: int
    width: int
    chains: int

    @property
    def columns(self) -> int:
        return STRIP_COLUMNS * self.width

    @property
    def threads(self) -> int:
        return 32 * self.width * self.chains


def tile_rows(rows: int) -> int:
    """The smallest tile that holds `rows` <= 32."""
    return 8 if rows <= 8 else 16 if rows <= 16 else MAX_ROWS


def tile_for(rows: int, columns: int, dtype: mx.Dtype) -> Tile:
    """Eight simdgroups; the fewer the columns, the more of them share a column, so that threadgroups stay many.

    Chains depend on the matrix alone, never on `rows`: a row's sums have one order whatever else is verified.
    """
    chains = 1 if columns >= 16384 else 2 if columns >= 8192 or dtype == mx.float32 else 4
    return Tile(tile_rows(rows), 8 // chains, chains)


def supports(rows: int, dtype: mx.Dtype, *, group_size: int, bits: int, mode: str = "affine") -> bool:
    """Whether `verify_qmm` has this product."""
    return 1 <= rows <= MAX_ROWS and dtype in _DTYPES and group_size in _GROUPS and bits in _BITS and mode == "affine"


def verify_qmm(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array,
    *,
    group_size: int,
    bits: int,
    fragments: mx.Dtype = mx.float32,
    tile: Tile | None = None,
    launch: Launch = launch_on_metal,
) -> mx.array:
    """x (M, K) or (1, M, K) times the dequantised W^T: (M, N) or (1, M, N) in x's dtype, summed in fp32.

    weight (N, K bits / 32) uint32, scales and biases (N, K / group_size) in x's dtype, as mx.quantize makes them.
    fragments: the operands' type in the GPU's matrix products.  fp32 keeps dequantised weights exact and suits
    every GPU; x's own 16-bit type halves the registers and rounds the weights as MLX's tiled kernel does.
    tile: for measurements; `tile_for` chooses it.
    """
    depth, columns = x.shape[-1], weight.shape[0]
    sizes = x.size // depth, columns, depth
    size, how = _plan(sizes, x.dtype, group_size, bits, fragments, tile or tile_for(sizes[0], columns, x.dtype))
    inputs = [w if w.size >= 8 else at_least_8(w) for w in (weight, scales, biases)]
    [y] = launch(
        VERIFY_QMM, [x, *inputs, size], output_shapes=[(*x.shape[:-1], columns)], output_dtypes=[x.dtype], **how
    )
    return y


@cache
def _plan(
    sizes: tuple[int, int, int], dtype: mx.Dtype, group_size: int, bits: int, fragments: mx.Dtype, tile: Tile
) -> tuple[mx.array, dict[str, Any]]:
    """What all launches of a shape share; a verification has hundreds of them, and the host builds each."""
    template = [("T", dtype), ("F", fragments), ("BITS", bits), ("GROUP", group_size)]
    template += [("ROWS", tile.rows), ("WIDTH", tile.width), ("CHAINS", tile.chains)]
    grid = (-(-sizes[1] // tile.columns) * tile.threads, 1, 1)
    return mx.array(sizes, mx.int32), {"template": template, "grid": grid, "threadgroup": (tile.threads, 1, 1)}
