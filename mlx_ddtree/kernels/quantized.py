"""Quantised matrix products of a verification's 1..32 rows, with every weight read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import mlx.core as mx

from mlx_ddtree.kernels.metal import Launch, MetalKernel, Settled, at_least_8, launch_on_metal, settled

MAX_ROWS = 32
MOST_SHARED = 5
"""Matrices of one launch: their sizes come in a vector of 7 numbers."""
STRIP_COLUMNS = 16  # output columns of a simdgroup
_GROUPS = (32, 64, 128)
_BITS = (2, 3, 4, 5, 6, 8)
_DTYPES = (mx.float16, mx.bfloat16, mx.float32)

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


class SharedInput:
    """Quantised matrices that multiply the same rows: q, k and v of an attention, or one matrix alone.

    parts: weight (N, K bits / 32) uint32, scales and biases (N, K / group_size) of each, as mx.quantize makes them; K,
        types, group_size and bits are the same for all.
    name: the matrices' outputs and inputs, as in '4096+1024+1024x4096'.
    settled: launches that are known, by the shape of the rows and what launches; they belong to these very arrays.
    """

    def __init__(self, parts: Sequence[Sequence[mx.array]], group_size: int, bits: int) -> None:
        self.parts = [tuple(part) for part in parts]
        self.group_size = group_size
        self.bits = bits
        self.columns = tuple(weight.shape[0] for weight, *_ in self.parts)
        self.depth: int = self.parts[0][1].shape[1] * group_size
        self.name = f"{'+'.join(map(str, self.columns))}x{self.depth}"
        self.dtype = self.parts[0][1].dtype
        self.settled: dict[Any, Callable[[mx.array], list[mx.array]]] = {}


def shared_qmm(x: mx.array, weights: SharedInput, *, launch: Launch = launch_on_metal) -> list[mx.array]:
    """x (..., K) of at most MAX_ROWS rows times each W^T of `weights`, in one launch: (..., N) each.

    Sums are those of `verify_qmm`.
    """
    key = x.shape, launch
    run = weights.settled.get(key)
    if run is None:
        run = weights.settled[key] = _settled(x, weights, mx.float32, None, launch)
    return run(x)


def shared_matmul(x: mx.array, weights: SharedInput) -> list[mx.array]:
    """`shared_qmm` by MLX's operations."""
    return [
        mx.quantized_matmul(x, weight, scales, biases, transpose=True, group_size=weights.group_size, bits=weights.bits)
        for weight, scales, biases in weights.parts
    ]


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
    alone = SharedInput([(weight, scales, biases)], group_size, bits)
    [y] = _settled(x, alone, fragments, tile, launch)(x)
    return y


def _settled(
    x: mx.array, weights: SharedInput, fragments: mx.Dtype, tile: Tile | None, launch: Launch
) -> Callable[[mx.array], list[mx.array]]:
    """The launch for rows of x's shape and type."""
    columns = weights.columns
    tile = tile or tile_for(x.size // weights.depth, sum(columns), x.dtype)
    run = _launch_of(x.shape[:-1], columns, x.dtype, fragments, weights.bits, weights.group_size, tile, launch)
    rest = [w if w.size >= 8 else at_least_8(w) for kind in zip(*weights.parts, strict=True) for w in kind]
    rest.append(_size(x.size // weights.depth, weights.depth, *columns))
    return lambda x: run(x, *rest)


@lru_cache(maxsize=256)
def _launch_of(
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    dtype: mx.Dtype,
    fragments: mx.Dtype,
    bits: int,
    group_size: int,
    tile: Tile,
    launch: Launch,
) -> Settled:
    """What equal layers of a model share: (x, weights, scales, biases, size) to the products."""
    how: dict[str, Any] = {
        "template": [
            *(("T", dtype), ("F", fragments), ("BITS", bits), ("GROUP", group_size)),
            *(("ROWS", tile.rows), ("WIDTH", tile.width), ("CHAINS", tile.chains)),
        ],
        "grid": (sum(-(-n // tile.columns) for n in columns) * tile.threads, 1, 1),
        "threadgroup": (tile.threads, 1, 1),
        "output_shapes": [(*rows, n) for n in columns],
        "output_dtypes": [dtype] * len(columns),
    }
    kernel = qmm_kernel(len(columns))
    return settled(launch, lambda launch, *inputs: launch(kernel, inputs, **how))


@cache
def _size(*numbers: int) -> mx.array:
    """Rows, depth and columns: equal layers of a model share them."""
    return mx.array(numbers, mx.int32)


@cache
def qmm_kernel(matrices: int) -> MetalKernel:
    """The kernel for so many matrices of one input, MOST_SHARED at most."""
    inputs = [f"{kind}_{i}" for kind in ("weight", "scales", "biases") for i in range(matrices)]
    outputs = tuple(f"y_{i}" for i in range(matrices))
    return MetalKernel("verify_qmm", ("x", *inputs, "size"), outputs, repeat=matrices)
