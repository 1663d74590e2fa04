"""What the kernels of gated delta layers and of commits read, write and launch, against plain MLX operations.

Usage: python studies/kernels/kernel_bytes_delta.py [--nodes 16 32 64] [--heads 48 --key-heads 16 --dim 128 --kernel 4]

Bytes of kernels are counted: they run on this machine's processor in the tests' harness, which counts every access of
every thread to device memory, caches or not.  What MLX operations move is computed from the graph that MLX records:
every operation that writes memory reads its inputs and writes its output once (views are free, and so are the copies
that some operations make of views).  Forking is computed too: every node reads its parent's state and writes
its own.  Sizes default to a layer of a 27B hybrid: bf16, states in fp32.  Rows are those of a tree with its root.
"""

import argparse
import sys
from math import prod
from pathlib import Path

from hybrid_verification import random_inputs, random_tree

import mlx_ddtree  # noqa: F401  threads of the BLAS library are chosen here
from mlx_ddtree.terminal import table_text

sys.path.insert(0, str(Path(__file__).parents[2]))

import mlx.core as mx  # isort: skip
from mlx_ddtree.kernels import gated_delta as plain
from mlx_ddtree.kernels import gated_delta_metal as metal
from mlx_ddtree.kernels.gather_rows import gather_rows, launch_gather_rows
from mlx_ddtree.target.rows import TreeRows
from tests.metal_host import HostLaunch

VIEWS = {"Squeeze", "ExpandDims", "Transpose", "Broadcast", "Slice", "Split", "Reshape", "Flatten", "Unflatten"}


class Operations:
    """Of a function of arrays, as MLX records them: how many write memory, and how much they move."""

    def __init__(self, function, *arrays):
        self.launches, self.bytes = 0, 0
        self._stored = {}
        mx.export_function(self._add, lambda *x: list(function(*x)), *arrays)

    def _add(self, part):
        if part["type"] == "inputs":
            self._stored |= {name: prod(shape) * dtype.size for name, shape, dtype in part["inputs"]}
        if part["type"] == "constants":
            self._stored |= {name: x.nbytes for name, x in part["constants"]}
        if part["type"] == "primitive":
            self._add_operation(part["name"], [x[0] for x in part["inputs"]], part["outputs"])

    def _add_operation(self, kind, sources, outputs):
        sizes = {name: prod(shape) * dtype.size for name, shape, dtype in outputs}
        read = sum(self._stored[x] for x in sources)
        wide = kind == "Reshape" and self._stored[sources[0]] < sum(sizes.values())  # of what was broadcast: a copy
        if kind in VIEWS and not wide:
            self._stored |= {name: min(size, self._stored[sources[0]]) for name, size in sizes.items()}
            return
        written = sum(sizes.values())
        if kind == "Gather":
            read = written
        if kind == "SliceUpdate":  # in place
            read = written = self._stored[sources[1]]
        self._stored |= sizes
        self.launches += 1
        self.bytes += read + written


def moved(launch):
    """Without the few numbers that every thread reads from constant memory."""
    counts = [*(x.bytes_read for x in launch.launches), *(x.bytes_written for x in launch.launches)]
    return sum(size for count in counts for name, size in count.items() if name != "sizes")


def megabytes(x):
    return f"{x / 1e6:.2f}"


def layer(nodes, args):
    """One layer's verification and commit of the longest path, both ways."""
    key_dim, dim = args.key_heads * args.dim, args.dim
    channels = 2 * key_dim + args.heads * dim
    rows = TreeRows(random_tree(nodes), 0, nodes)
    path = mx.array(rows.tree.path_to(int(rows.tree.depths.argmax())))
    q, k, v, log_gates, beta, state = random_inputs(nodes, args.key_heads, args.heads, dim)
    data = (*(x.astype(mx.bfloat16) for x in (q, k, v)), log_gates, beta.astype(mx.bfloat16), state)
    conv = [
        mx.random.normal(s).astype(mx.bfloat16)
        for s in ((1, nodes, channels), (1, args.kernel - 1, channels), (channels, args.kernel, 1))
    ]
    table, ancestors = rows.conv_table(args.kernel), rows.ancestors
    launches = {name: HostLaunch() for name in ("convolution", "recurrence", "state", "window")}
    metal.tree_conv_qkv(*conv, table, key_dim, launch=launches["convolution"])
    _, delta = metal.tree_gated_delta(*data, rows.bits.words, launch=launches["recurrence"])
    metal.commit_states([delta], path, launch=launches["state"])
    metal.commit_windows([conv[1]], [conv[0]], path, launch=launches["window"])

    def recurrence(*x):
        out, d = plain.tree_gated_delta(*x)
        return out, d.updates, d.log_decay

    operations = {
        "convolution": Operations(lambda *x: plain.tree_conv_qkv(*x, key_dim), *conv, table),
        "recurrence": Operations(recurrence, *data, ancestors),
        "state": Operations(lambda *x: plain.commit_states([plain.TreeDelta(*x[:4])], x[4]), *delta, path),
        "window": Operations(lambda w, x, p: plain.commit_windows([w], [x], p), conv[1], conv[0], path),
    }
    return data[5].nbytes, launches, operations


def layers_table(args):
    states, parts = [], []
    for nodes in args.nodes:
        state, launches, operations = layer(nodes, args)
        read = launches["recurrence"].last.bytes_read["state"]
        states.append(
            {
                "rows": nodes,
                "kernel (counted)": megabytes(read),
                "states": f"{read / state:.2f}",
                "fork (computed)": megabytes(2 * nodes * state),
                "less": f"{1 - read / (2 * nodes * state):.1%}",
            }
        )
        for name, launch in launches.items():
            parts.append(
                {
                    "rows": nodes,
                    "part": name,
                    "launches": len(launch.launches),
                    "MB (counted)": megabytes(moved(launch)),
                    "MLX launches": operations[name].launches,
                    "MLX MB (computed)": megabytes(operations[name].bytes),
                }
            )
    return states, parts


def cache_table(layers=32, heads=8, dim=128, rows=16, context=4096):
    """Keys and values of attention layers, bf16: a path whose root is in place, its other rows scattered or not."""
    brought = [mx.zeros((1, heads, rows, dim), mx.bfloat16) for _ in range(2 * layers)]
    kept = [mx.zeros((1, heads, context + rows, dim), mx.bfloat16) for _ in range(2 * layers)]
    lines = []
    for path in ([4, 7, 11], [4, 5, 6]):
        launch = HostLaunch()
        launch_gather_rows(brought, path, launch=launch)

        def move(*x, path=path):
            return [
                mx.slice_update(a, r, mx.array([context + 1]), axes=[2])
                for a, r in zip(x[len(brought) :], gather_rows(x[: len(brought)], path), strict=True)
            ]

        lines.append(
            {
                "layers": layers,
                "moved rows": str(path),
                "gathers": len(launch.launches),
                "assignments": len(brought),
                "all": len(launch.launches) + len(brought),
                "MLX launches": Operations(move, *brought, *kept).launches,
            }
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--heads", type=int, default=48)
    parser.add_argument("--key-heads", type=int, default=16)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--kernel", type=int, default=4)
    args = parser.parse_args()
    states, parts = layers_table(args)
    print("MB of states that a layer's verification reads (fork: reads and writes)\n" + table_text(states))
    print("\nA layer's launches, and all that they read and write\n" + table_text(parts))
    print("\nA cache's commit\n" + table_text(cache_table()))


if __name__ == "__main__":
    main()
