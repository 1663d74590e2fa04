"""Bytes that the kernels move, counted by the tests' harness on the host; Markdown for docs/kernels.md.

Usage: python studies/kernels/kernel_bytes.py [--contexts 512 4096 32768] [--nodes 16 32 64]

Counted: every access to device memory by every thread of the kernel's own text (tests/metal_host, mode check),
whatever caches would have answered.  "Once" is the bound: the bytes of the keys and values themselves.  The
alternatives are computed: attention of one node after the other reads everything for each node; one dense pass under
a mask reads it once at best, and for every query head a mask of one byte for each row and key.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels.tree_attention import tree_attention
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree
from tests.metal_host import HostLaunch, missing_compiler

SHAPES = ((128, 2), (256, 1))  # head size, query heads of a KV head
MODELS = (  # query heads, KV heads, head size
    ("Qwen3-8B", 32, 8, 128),
    ("Qwen3.5-9B", 16, 4, 256),
    ("Qwen3.5-27B", 24, 4, 256),
    ("gpt-oss-20b, full layers", 64, 8, 64),
)


def random_tree(nodes: int) -> DraftTree:
    """As a budget of nodes - 1 leaves one: parents not far back."""
    rng = np.random.default_rng(nodes)
    parents = np.array([-1, *(int(rng.integers(max(0, i - 8), i)) for i in range(1, nodes))], np.int32)
    depths = np.zeros(nodes, np.int32)
    for i in range(1, nodes):
        depths[i] = depths[parents[i]] + 1
    return DraftTree(np.zeros(nodes, np.int32), parents, depths, np.zeros(nodes, np.float32))


def count(context: int, nodes: int, query_heads: int, heads: int, dim: int) -> dict[str, int]:
    """Bytes of one call in 16 bits, keys and values sliced from a cache with room behind."""
    mx.random.seed(0)
    queries = mx.random.normal((1, query_heads, nodes, dim)).astype(mx.float16)
    capacity = -(-(context + nodes) // 256) * 256
    keys, values = (
        mx.random.normal((1, heads, capacity, dim)).astype(mx.float16)[:, :, : context + nodes] for _ in range(2)
    )
    launch = HostLaunch()
    tree_attention(
        *(queries, keys, values, TreeRows(random_tree(nodes), context, nodes).bits),
        context=context,
        scale=dim**-0.5,
        launch=launch,
    )
    ranges, merge = launch.launches
    length, once = context + nodes, keys.nbytes + values.nbytes
    return {
        "once": once,
        "kernel": ranges.bytes_read["keys"] + ranges.bytes_read["values"],
        "partial": sum(ranges.bytes_written.values()) + merge.bytes_read["partial"] + merge.bytes_read["stats"],
        "bits": ranges.bytes_read["words"] + ranges.bytes_read["depths"],
        "per node": nodes * once,
        "dense": once + query_heads * nodes * length,
    }


def size(count: int) -> str:
    return f"{count / 2**20:.2f}" if count < 10 * 2**20 else f"{count / 2**20:,.0f}"


def row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def attention(contexts: list[int], all_nodes: list[int], models_context: int) -> None:
    """K/V by context, nodes and head size; then whole layers of real models."""
    print("K/V bytes of one call, 16 bits, one KV head, in MiB:\n")
    row("head size", "query heads", "context", "nodes", "once", "kernel", "kernel / once", "per node", "saved")
    row(*["---:"] * 9)
    others = []
    for dim, grouped in SHAPES:
        for context in contexts:
            for nodes in all_nodes:
                c = count(context, nodes, grouped, 1, dim)
                saved = f"{1 - c['kernel'] / c['per node']:.1%}"
                row(
                    *(dim, grouped, context, nodes, size(c["once"]), size(c["kernel"])),
                    *(f"{c['kernel'] / c['once']:.3f}", size(c["per node"]), saved),
                )
                others.append((dim, grouped, context, nodes, c))
    print("\nEverything else that the same calls move, beside a dense pass and its mask, in MiB:\n")
    row("head size", "query heads", "context", "nodes", "partial results", "bits", "all of it", "dense with mask")
    row(*["---:"] * 8)
    for dim, grouped, context, nodes, c in others:
        whole = c["kernel"] + c["partial"] + c["bits"]
        row(dim, grouped, context, nodes, *(size(n) for n in (c["partial"], c["bits"], whole, c["dense"])))
    print(f"\nOne layer of real models, context {models_context}:\n")
    row(
        "model",
        "heads",
        "head size",
        "nodes",
        "rows of a KV head",
        "once",
        "kernel / once",
        "partial results",
        "saved against per node",
    )
    row("---", *["---:"] * 8)
    for name, query_heads, heads, dim in MODELS:
        for nodes in all_nodes:
            c = count(models_context, nodes, query_heads, heads, dim)
            saved = f"{1 - c['kernel'] / c['per node']:.1%}"
            rows = nodes * query_heads // heads
            ratio = f"{c['kernel'] / c['once']:.3f}"
            row(name, f"{query_heads} / {heads}", dim, nodes, rows, size(c["once"]), ratio, size(c["partial"]), saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 4096, 32768])
    parser.add_argument("--nodes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--models-context", type=int, default=1024, help="of the table of real models")
    args = parser.parse_args()
    if reason := missing_compiler():
        sys.exit(reason)
    attention(args.contexts, args.nodes, args.models_context)


if __name__ == "__main__":
    main()
