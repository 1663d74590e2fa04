"""What a verification's graph costs the host, with the Metal kernels and with MLX's operations.

Usage: python studies/kernels/graph_time.py [calls] [graphs] [--layers 36] [--rows 16] [--repeats 9]

Nothing is computed: within mx.export_function MLX records a Metal kernel's call as it would on a Mac, so that the
time of making a graph can be taken on any machine.  Times are processor time of the calling thread, both ways in turns,
the least of the repeats.

Away from a Mac MLX writes its fused operations (RMS norm, rotary embedding, attention) out as several operations each.
--fused puts one operation in the place of each, as a GPU has it; without it MLX's way is charged for what no Mac does.

calls:   microseconds of each launcher's call and of its MLX operation
graphs:  milliseconds of a verification of so many rows through a model of so many layers
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models import qwen3

from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.kernels import metal
from mlx_ddtree.kernels.registry import kernel_choice
from mlx_ddtree.target.marks import mark_with_arrays, rewind
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tuning.sample_trees import bushy_tree

NAMES = ("tree_attention", "verify_qmm")


class Every:
    def __contains__(self, x): return True
    def add(self, x): ...

metal._awaited = Every()

def recorded(build: Callable[[], None]) -> None:
    """Run `build` where MLX records kernels instead of launching them."""

    def traced(x: mx.array) -> list[mx.array]:
        build()
        return [x]

    mx.export_function(lambda _: None, traced, mx.zeros(1))


def least(ways, repeats):
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            best[name] = min(best[name], time.thread_time() - start)
    return best


def model(layers, dtype=mx.float16):
    args = dict(model_type="qwen3", hidden_size=128, num_hidden_layers=layers, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2,
                rms_norm_eps=1e-6, vocab_size=256, head_dim=64, max_position_embeddings=4096, rope_theta=1e4, tie_word_embeddings=True)
    m = qwen3.Model(qwen3.ModelArgs(**args))
    m.set_dtype(dtype)
    nn.quantize(m, group_size=64, bits=4)
    mx.eval(m.parameters())
    return TreeTarget(m)


@contextmanager
def fused():
    own = mx.fast.rms_norm, mx.fast.rope, mx.fast.scaled_dot_product_attention
    mx.fast.rms_norm = lambda x, w, eps: mx.add(x, w)
    mx.fast.rope = lambda x, *a, **k: mx.add(x, x)
    mx.fast.scaled_dot_product_attention = lambda q, k, v, **how: mx.add(q, q)
    yield
    mx.fast.rms_norm, mx.fast.rope, mx.fast.scaled_dot_product_attention = own


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--layers", type=int, default=36)
    p.add_argument("--rows", type=int, default=16)
    p.add_argument("--repeats", type=int, default=9)
    p.add_argument("--fused", action="store_true")
    p.add_argument("--profile", action="store_true")
    a = p.parse_args()
    target = model(a.layers)
    cache = target.make_cache()
    target.forward(mx.zeros((1, 32), mx.int32), cache)
    mx.eval([c.state for c in cache])
    tree = bushy_tree(a.rows, 5)
    tokens = mx.zeros((1, a.rows), mx.int32)

    def build(names):
        choice = kernel_choice({1: names})
        def go():
            target.kernels = choice
            marked = mark_with_arrays(cache)
            rows = TreeRows(tree, 32, a.rows)
            h, f, pending = target.forward_rows(tokens, rows, cache)
            del h, f, pending
            rewind(cache, marked)
        return go
    ways = {"mlx": build([]), "qmm": build(["verify_qmm"]), "att": build(["tree_attention"]), "both": build(NAMES)}
    def measure():
        if a.profile:
            import cProfile, pstats
            go = ways["both"]
            go()
            pr = cProfile.Profile()
            pr.enable()
            for _ in range(5): go()
            pr.disable()
            pstats.Stats(pr).sort_stats("tottime").print_stats(32)
        else:
            got = least(ways, a.repeats)
            for k, v in got.items(): print(k, f"{v*1e3:.2f} ms  {v/got['mlx']:.2f}")
    if a.fused:
        with fused(): recorded(measure)
    else: recorded(measure)

main()
