"""Verifying a tree in one gated delta layer: the closed form against forking and replaying the state.

Usage: python studies/kernels/hybrid_verification.py [--nodes 8 16 32 64] [--heads 48 --key-heads 16 --dim 128] [--json F]

closed form  what the package does (kernels/gated_delta.py): one triangular system, the state is read once
fork         one state per node: every depth of the tree steps from its parents' states; the commit picks one
replay       every path from the root to a leaf is run by mlx-lm's recurrence; the commit runs the accepted path again

All are checked against each other, then timed with the commit of a deepest path; seconds are the median, memory is
MLX's peak above what was there before.  Sizes default to those of a 27B hybrid's layer.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

import mlx_ddtree  # noqa: F401  threads of the BLAS library are chosen here
from mlx_ddtree.kernels.gated_delta import commit_delta, tree_gated_delta
from mlx_ddtree.terminal import table_text
from mlx_ddtree.tree import DraftTree

import mlx.core as mx  # isort: skip
from mlx_lm.models.gated_delta import gated_delta_ops  # isort: skip


def random_tree(count, seed=0):
    """The shape of a draft tree: a spine, and branches that leave it early."""
    rng = np.random.default_rng(seed)
    parents = [-1]
    for i in range(1, count):
        parents.append(i - 1 if rng.random() < 0.5 else int(rng.integers(0, i)))
    depths = np.zeros(count, np.int32)
    for i in range(1, count):
        depths[i] = depths[parents[i]] + 1
    return DraftTree(np.zeros(count, np.int32), np.array(parents, np.int32), depths, np.zeros(count, np.float32))


def random_inputs(count, key_heads, heads, dim):
    q, k = (mx.random.normal((1, count, key_heads, dim)) for _ in range(2))
    q, k = (x / mx.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    v = mx.random.normal((1, count, heads, dim))
    log_g = -mx.exp(mx.random.normal((1, count, heads)) - 3)
    beta = mx.sigmoid(mx.random.normal((1, count, heads)))
    state = mx.random.normal((1, heads, dim, dim))
    mx.eval(q, k, v, log_g, beta, state)
    return q, k, v, log_g, beta, state


def closed_form(tree, path, inputs):
    out, delta = tree_gated_delta(*inputs, mx.array(tree.ancestor_mask()))
    return out, commit_delta(delta, mx.array(path))


def fork(tree, path, inputs):
    q, k, v, log_g, beta, state = inputs
    outputs, states, order = [], None, []
    places = np.zeros(len(tree), np.int32)
    for depth in range(int(tree.depths.max()) + 1):
        nodes = np.flatnonzero(tree.depths == depth)
        before = state if depth == 0 else mx.take(states, mx.array(places[tree.parents[nodes]]), axis=0)
        part = [mx.take(x[0], mx.array(nodes), axis=0)[:, None] for x in (q, k, v, log_g, beta)]
        out, after = gated_delta_ops(part[0], part[1], part[2], mx.exp(part[3]), part[4], before)
        places[nodes] = np.arange(len(nodes)) + (0 if states is None else states.shape[0])
        states = after if states is None else mx.concatenate([states, after])
        outputs.append(out[:, 0])
        order += nodes.tolist()
    out = mx.take(mx.concatenate(outputs), mx.array(np.argsort(order)), axis=0)[None]
    return out, states[int(places[path[-1]])][None]


def replay(tree, path, inputs):
    outputs = {}
    for leaf in sorted(set(range(len(tree))) - set(tree.parents.tolist())):
        nodes = tree.path_to(leaf)
        out, _ = recur(nodes, inputs)
        outputs |= {node: out[0, i] for i, node in enumerate(nodes) if node not in outputs}
    _, state = recur(path, inputs)
    return mx.stack([outputs[i] for i in range(len(tree))])[None], state


def recur(nodes, inputs):
    q, k, v, log_g, beta = (mx.take(x, mx.array(nodes), axis=1) for x in inputs[:5])
    return gated_delta_ops(q, k, v, mx.exp(log_g), beta, inputs[5])


def measure(method, tree, path, inputs, repeats):
    times = []
    mx.eval(method(tree, path, inputs))
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in range(repeats):
        start = perf_counter()
        mx.eval(method(tree, path, inputs))
        times.append(perf_counter() - start)
    return median(times), mx.get_peak_memory() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--heads", type=int, default=48)
    parser.add_argument("--key-heads", type=int, default=16)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lines = []
    for count in args.nodes:
        tree, inputs = random_tree(count + 1), random_inputs(count + 1, args.key_heads, args.heads, args.dim)
        path = tree.path_to(int(tree.depths.argmax()))
        want = [np.array(x) for x in replay(tree, path, inputs)]
        base = None
        for method in (closed_form, fork, replay):
            for got, x in zip(method(tree, path, inputs), want, strict=True):
                np.testing.assert_allclose(np.array(got), x, atol=1e-3)
            seconds, peak = measure(method, tree, path, inputs, args.repeats)
            base = base or seconds
            lines.append(
                {
                    "nodes": count,
                    "depth": int(tree.depths.max()),
                    "method": method.__name__.replace("_", " "),
                    "ms": round(seconds * 1e3, 1),
                    "against closed form": f"{seconds / base:.1f}x",
                    "peak MB": round(peak / 1e6, 1),
                }
            )
    print(table_text(lines))
    if args.json:
        args.json.write_text(json.dumps(lines, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
