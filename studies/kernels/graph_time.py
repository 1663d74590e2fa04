"""What making a verification's graph costs the host, with the Metal kernels and with MLX's operations.

Usage: python studies/kernels/graph_time.py [calls] [graphs] [--layers 36] [--rows 16] [--repeats 25]

Nothing is computed.  Within mx.export_function MLX records the call of a Metal kernel as it does on a Mac, so that the
time can be taken on any machine.  Times are processor time of the calling thread, freeing the graph included; all ways
take turns, and the least and the median of the repeats are shown.

Away from a GPU MLX writes out RMS norms, rotary embeddings and attention as several operations each, which makes its own
graph dearer.  The second table puts one operation in the place of each of them, for an estimate of a Mac.

calls:   microseconds of each kernel's launcher and of the MLX operations in whose place it is, at tiny sizes
graphs:  milliseconds of a verification's graph, a Qwen3 of tiny widths at 4 bits
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import qwen3

from mlx_ddtree.kernels import cases, metal
from mlx_ddtree.kernels.agreement import arrays
from mlx_ddtree.kernels.registry import ATTENTION, PRODUCT, kernel_choice
from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.marks import mark_with_arrays, rewind
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tuning.sample_trees import bushy_tree

CONTEXT = 32
CALLS = 50
"""Calls that are timed as one."""
WAYS = {"MLX's operations": (), PRODUCT: (PRODUCT,), ATTENTION: (ATTENTION,), "both kernels": (PRODUCT, ATTENTION)}
CONFIG = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rms_norm_eps": 1e-6,
    "vocab_size": 256,
    "max_position_embeddings": 4096,
    "rope_theta": 1e4,
    "tie_word_embeddings": True,
}
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""glibc's mallopt."""


class _All:
    """As a set: everything that was ever asked for."""

    def __contains__(self, variant: object) -> bool:
        return True


def recorded(build: Callable[[], None]) -> None:
    """Run `build` where MLX records kernels and launches none."""

    def traced(x: mx.array) -> list[mx.array]:
        build()
        return [x]

    metal._awaited = _All()  # type: ignore[assignment]  # there is nothing to wait for
    mx.export_function(lambda _: None, traced, mx.zeros(1))


def keep_memory() -> None:
    """Let malloc keep what a graph has freed: asking the system for it anew would be most of the time."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option, value in ((TRIM_THRESHOLD, 2**30), (TOP_PAD, 2**26), (MMAP_THRESHOLD, 2**25)):
            libc.mallopt(option, value)


def in_turns(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, float]]:
    """Least and median seconds of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            seconds[name].append(time.thread_time() - start)
    return {name: (min(taken), median(taken)) for name, taken in seconds.items()}


def calls_table(repeats: int) -> None:
    print("| kernel | size | launcher, us | MLX, us | ratio of medians |")
    print("|---|---|---|---|---|")
    for case in cases.typical_cases(metal.launch_on_metal, scale=64):
        sides = {
            side: lambda compute=compute: [arrays(compute()) for _ in range(CALLS)]
            for side, compute in (("kernel", case.kernel), ("MLX", case.reference))
        }
        taken = in_turns(sides, repeats)
        (ours, our_median), (mlx, mlx_median) = taken["kernel"], taken["MLX"]
        each = 1e6 / CALLS
        print(f"| {case.name} | {case.size} | {ours * each:.1f} | {mlx * each:.1f} | {our_median / mlx_median:.2f} |")


def graphs_table(layers: int, rows: int, repeats: int) -> None:
    model = qwen3.Model(qwen3.ModelArgs(num_hidden_layers=layers, **CONFIG))
    model.set_dtype(mx.float16)
    nn.quantize(model, group_size=64, bits=4)
    target = TreeTarget(model)
    cache = target.make_cache()
    target.forward(mx.zeros((1, CONTEXT), mx.int32), cache)
    mx.eval(model.parameters(), [layer.state for layer in cache])
    tree, token_ids = bushy_tree(rows, 5), mx.zeros((1, rows), mx.int32)
    choices = {name: kernel_choice({1: names}) for name, names in WAYS.items()}

    def build(name: str) -> None:
        target.kernels = choices[name]
        before = mark_with_arrays(cache)
        target.forward_rows(token_ids, TreeRows(tree, CONTEXT, rows), cache)
        rewind(cache, before)

    ways = {name: lambda name=name: build(name) for name in WAYS}
    taken = in_turns(ways, repeats)
    least, middle = taken["MLX's operations"]
    for name, (one, other) in taken.items():
        print(f"| {name} | {one * 1e3:.2f} | {other * 1e3:.2f} | {one / least:.2f} | {other / middle:.2f} |")


@contextmanager
def fused_as_on_a_gpu() -> Iterator[None]:
    """One operation for each of MLX's fused ones.  What it computes is nothing, but of the right shape."""
    fast: Any = mx.fast
    names = ("rms_norm", "rope", "scaled_dot_product_attention")
    own = [getattr(fast, name) for name in names]
    fast.rms_norm = lambda x, weight, eps: x + weight
    fast.rope = lambda x, *rest, **how: x + x
    fast.scaled_dot_product_attention = lambda queries, *rest, **how: queries + queries
    try:
        yield
    finally:
        for name, function in zip(names, own, strict=True):
            setattr(fast, name, function)


def graphs_tables(layers: int, rows: int, repeats: int) -> None:
    for said, how in (("written out, as on this machine", None), ("one each, as on a GPU", fused_as_on_a_gpu)):
        print(f"\nNorms, rotary embeddings and attention of MLX {said}; {layers} layers, {rows} rows\n")
        print(
            "| a verification's graph | least, ms | median, ms | ratio of least | of medians |\n|---|---|---|---|---|"
        )
        if how is None:
            graphs_table(layers, rows, repeats)
        else:
            with how():
                graphs_table(layers, rows, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="calls, graphs; both by default")
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=25)
    args = parser.parse_args()
    keep_memory()
    tables = args.tables or ["calls", "graphs"]
    if "calls" in tables:
        recorded(lambda: calls_table(args.repeats))
    if "graphs" in tables:
        recorded(lambda: graphs_tables(args.layers, args.rows, args.repeats))


if __name__ == "__main__":
    main()
