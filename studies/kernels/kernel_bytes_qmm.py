"""Bytes that the quantised products, the fused LM head and the top-k kernels move; Markdown for docs/kernels.md.

Usage: python studies/kernels/kernel_bytes_qmm.py [qmm] [head] [topk]

Counted: every access to device memory by every thread of the kernels' own text (tests/metal_host, mode check), whatever
caches would have answered.  All threadgroups of a product do the same, so a slice of 128 output columns is run, at the
full depth and with the full matrix's tile, and multiplied.  The other columns are computed from the kernels that MLX
publishes (0.32, mlx/backend/metal: quantized.cpp, sort.cpp), as each function says.
"""

import argparse
import sys
from math import ceil, log2
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx

from mlx_ddtree.kernels.head import HeadWeights, head_top_k
from mlx_ddtree.kernels.quantized import tile_for, verify_qmm
from mlx_ddtree.kernels.topk import topk_logprobs
from tests.metal_host import HostLaunch, missing_compiler

ROWS = (2, 8, 9, 16, 32)
SLICE = 128  # output columns that are run
GROUP = 64
LAYERS = (  # columns, depth, bits
    (17408, 5120, 4),  # gate and up of a 27B model
    (4096, 4096, 4),
    (17408, 5120, 8),
)
VOCAB, HEAD_DEPTH, HEAD_TILES = 151_936, 2560, 5
MEGA = 1e6


def packed(columns: int, depth: int, bits: int) -> list[mx.array]:
    weight = mx.random.normal((columns, depth), key=mx.random.key(0)).astype(mx.float16)
    return list(mx.quantize(weight, group_size=GROUP, bits=bits))


def matrix_bytes(columns: int, depth: int, bits: int) -> int:
    """Words, scales and biases."""
    return columns * depth * bits // 8 + 2 * 2 * columns * depth // GROUP


def count_qmm(rows: int, columns: int, depth: int, bits: int) -> dict[str, float]:
    """Bytes read by buffer, of the whole matrix."""
    launch = HostLaunch()
    x = mx.random.normal((rows, depth)).astype(mx.float16)
    tile = tile_for(rows, columns, x.dtype)
    verify_qmm(x, *packed(SLICE, depth, bits), group_size=GROUP, bits=bits, tile=tile, launch=launch)
    return {name: n * columns / SLICE for name, n in launch.last.bytes_read.items()}


def mlx_reads(rows: int, limit: int, *, wide: bool) -> str:
    """How often MLX's kernels read the weights: the matrix-vector kernel once a row, its wide form once for five
    rows, and from `limit` rows on the tiled kernel once for 32."""
    if rows >= limit:
        return f"{ceil(rows / 32)} x, 32-row tile"
    return f"{ceil(rows / 5) if wide else rows} x, vectors"


def qmm_table() -> None:
    print(
        "| matrix | rows | words | scales, biases | x | words, reads of each | tile's rows | MLX, M3-M4 | MLX, M1-M2 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for columns, depth, bits in LAYERS:
        words = columns * depth * bits / 8
        small = columns <= 4096 and depth <= 4096
        for rows in ROWS:
            read = count_qmm(rows, columns, depth, bits)
            new = mlx_reads(rows, 15 if small else 13, wide=True)
            old = mlx_reads(rows, 10 if small else 6, wide=False)
            affine = (read["scales_0"] + read["biases_0"]) / MEGA
            tile = tile_for(rows, columns, mx.float16).rows
            print(
                f"| {depth} to {columns}, {bits} bits | {rows} | {read['weight'] / MEGA:.1f} | {affine:.1f} | "
                f"{read['x'] / MEGA:.1f} | {read['weight'] / words:.2f} | {tile} | {new} | {old} |"
            )


def count_head(rows: int, k: int, bits: int | None) -> tuple[float, float]:
    """(bytes of the head's weights read, bytes of anything that depends on the vocabulary written and read again)."""
    launch = HostLaunch()
    columns = SLICE * HEAD_TILES
    hidden = mx.random.normal((rows, HEAD_DEPTH)).astype(mx.float16)
    plain = mx.random.normal((columns, HEAD_DEPTH)).astype(mx.float16)
    head = HeadWeights(*packed(columns, HEAD_DEPTH, bits), GROUP, bits) if bits else HeadWeights(plain)
    head_top_k(hidden, head, k, launch=launch)
    first, merge = launch.launches
    lists = sum(first.bytes_written.values()) + sum(merge.bytes_read[name] for name in ("entries", "sums"))
    return first.bytes_read["weight_0"] * VOCAB / columns, lists * VOCAB / columns


def head_table() -> None:
    print("| head | rows | k | weights read | lists written and read | logits written, then read twice |")
    print("|---|---|---|---|---|---|")
    for bits, rows, k in ((4, 8, 2), (4, 16, 2), (4, 32, 2), (4, 32, 8), (None, 16, 2), (None, 32, 2)):
        weights, lists = count_head(rows, k, bits)
        logits = 3 * 2 * rows * VOCAB
        name = f"{bits} bits" if bits else "fp16"
        print(f"| {name} | {rows} | {k} | {weights / MEGA:.0f} | {lists / MEGA:.2f} | {logits / MEGA:.1f} |")


def mlx_top_k(vocab: int, k: int) -> tuple[int, int]:
    """(launches, bytes a 16-bit logit) of `topk._by_mlx`: a copy to fp32 (2 + 4), then for k = 1 argmax and logsumexp
    (4 each); else negation (8), argpartition, which is a whole sort (blocks of 2048: 4 + 8, then merges of (value,
    index) 8 + 8 and a copy 4 + 4) and logsumexp (4).  Gathering, subtracting and packing add 6 small launches."""
    if k == 1:
        return 3 + 6, 6 + 4 + 4
    merges = ceil(log2(ceil(vocab / 2048)))
    return 2 + 1 + 2 * merges + 1 + 1 + 6, 6 + 8 + 12 + 16 * merges + 8 + 4


def topk_table(rows: int = 15) -> None:
    print("| k | launches | bytes read | bytes written | of reading once | MLX: launches | bytes | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    logits = mx.random.normal((rows, VOCAB), key=mx.random.key(1)).astype(mx.float16)
    for k in (1, 8, 32, 64):
        launch = HostLaunch()
        topk_logprobs(logits, k, launch=launch)
        read = sum(n for run in launch.launches for name, n in run.bytes_read.items() if name != "size")
        written = sum(sum(n.bytes_written.values()) for n in launch.launches)
        launches, each = mlx_top_k(VOCAB, k)
        theirs = each * rows * VOCAB
        print(
            f"| {k} | {len(launch.launches)} | {read / MEGA:.2f} | {written / MEGA:.2f} | {(read + written) / logits.nbytes:.2f} | "
            f"{launches} | {theirs / MEGA:.0f} | {theirs / (read + written):.0f} |"
        )


TABLES = {"qmm": qmm_table, "head": head_table, "topk": topk_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"any of {', '.join(TABLES)}; all by default")
    args = parser.parse_args()
    mx.random.seed(0)
    if reason := missing_compiler():
        sys.exit(reason)
    for name in args.tables or TABLES:
        print(f"\n{name}, megabytes\n")
        TABLES[name]()


if __name__ == "__main__":
    main()
