"""Launchers of the Metal kernels for gated delta layers; kernels/gated_delta.py has the references."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache, partial

import mlx.core as mx

from mlx_ddtree.kernels.gated_delta import DeltaKernels, TreeDelta
from mlx_ddtree.kernels.metal import Launch, MetalKernel, at_least_8, launch_on_metal

_TREE_GATED_DELTA = MetalKernel(
    "tree_gated_delta",
    inputs=("queries", "keys", "values", "log_gates", "beta", "state", "ancestors", "sizes"),
    outputs=("out", "updates", "log_decay"),
)
_TREE_CONV = MetalKernel(
    "tree_conv", inputs=("rows", "before", "weight", "table", "sizes"), outputs=("queries", "keys", "values")
)
_THREADGROUP_BYTES = 32768
"""What Metal gives a threadgroup."""
_MOST_BUFFERS = 31
"""What Metal gives a kernel."""
MAX_NODES = 128


def delta_kernels(launch: Launch = launch_on_metal) -> DeltaKernels:
    """All of this module, for a target whose heads `fits` accepts."""
    return DeltaKernels(
        partial(tree_conv_qkv, launch=launch),
        partial(tree_gated_delta, launch=launch),
        partial(commit_states, launch=launch),
        partial(commit_windows, launch=launch),
        packed_ancestors=True,
        max_rows=MAX_NODES,
    )


def tree_gated_delta(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    log_gates: mx.array,
    beta: mx.array,
    state: mx.array,
    ancestors: mx.array,
    *,
    launch: Launch = launch_on_metal,
) -> tuple[mx.array, TreeDelta]:
    """gated_delta.tree_gated_delta in one launch.

    ancestors: (>= N, ceil(N / 32)) uint32, bit a % 32 of word a // 32 in row t for ancestor a, t itself included.
    Raises ValueError for sizes that `fits` refuses.
    """
    count, key_heads, dk = queries.shape[1:]
    heads, dv = values.shape[2:]
    dtype = queries.dtype
    if not fits(count, dk, dv, dtype):
        raise ValueError(f"no kernel for {count} nodes with heads of {dk} x {dv} in {dtype}")
    nodes = _capacity(count)
    groups = _simdgroups(nodes, dk, dv, dtype)
    beta, log_gates = at_least_8(beta), at_least_8(log_gates.astype(mx.float32))
    out, updates, log_decay = launch(
        _TREE_GATED_DELTA,
        [
            *(x.astype(dtype) for x in (queries, keys, values)),
            log_gates,
            beta,
            state,
            at_least_8(ancestors),
            _sizes(count, key_heads, heads, dv),
        ],
        template=[
            ("T", dtype),
            ("Beta", beta.dtype),
            ("State", state.dtype),
            ("DK", dk),
            ("NODES", nodes),
            ("SIMDGROUPS", groups),
        ],
        grid=(32 * groups * (dv // (8 * groups)), heads, 1),
        threadgroup=(32 * groups, 1, 1),
        output_shapes=[(1, count, heads, dv), (heads, count, dv), (heads, count)],
        output_dtypes=[dtype, mx.float32, mx.float32],
    )
    return out, TreeDelta(updates, keys, log_decay, state)


def tree_conv_qkv(
    rows: mx.array,
    before: mx.array,
    weight: mx.array,
    table: mx.array,
    key_dim: int,
    *,
    launch: Launch = launch_on_metal,
) -> tuple[mx.array, mx.array, mx.array]:
    """gated_delta.tree_conv_qkv in one launch; up to 128 nodes."""
    count, channels = rows.shape[1:]
    kernel, dtype = weight.shape[1], rows.dtype
    tile = 128 // dtype.size
    lanes = 256 // tile
    queries, keys, values = launch(
        _TREE_CONV,
        [
            rows,
            before.astype(dtype),
            weight,
            at_least_8(table),
            _sizes(count, channels, key_dim),
        ],
        template=[
            ("T", dtype),
            ("Weight", weight.dtype),
            ("KERNEL", kernel),
            ("CHANNELS", tile),
            ("NODE_LANES", lanes),
            ("MAX_NODES", MAX_NODES),
        ],
        grid=(tile * -(-channels // tile), lanes, 1),
        threadgroup=(tile, lanes, 1),
        output_shapes=[(1, count, width) for width in (key_dim, key_dim, channels - 2 * key_dim)],
        output_dtypes=[dtype] * 3,
    )
    return queries, keys, values


def commit_states(deltas: Sequence[TreeDelta], path: mx.array, *, launch: Launch = launch_on_metal) -> list[mx.array]:
    """gated_delta.commit_states, 5 layers to a launch; layers are of one shape, as those of a model are."""
    padded, length = at_least_8(path), path.size
    most = (_MOST_BUFFERS - 2) // 5
    parts = [deltas[i : i + most] for i in range(0, len(deltas), most)]
    return [state for part in parts for state in _commit_states(part, padded, length, launch)]


def _commit_states(deltas: Sequence[TreeDelta], path: mx.array, length: int, launch: Launch) -> list[mx.array]:
    updates, keys, _, state = deltas[0]
    heads, nodes, dv = updates.shape
    key_heads, dk = keys.shape[2:]
    rows = next(r for r in (32, 16, 8, 4, 2, 1) if dv % r == 0)
    return launch(
        _commit_kernel("commit_delta", ("updates", "keys", "log_decay", "state"), len(deltas)),
        [
            *(x for delta in deltas for x in (delta.updates, delta.keys, at_least_8(delta.log_decay), delta.state)),
            path,
            _sizes(length, nodes, key_heads, heads, dv),
        ],
        template=[("T", keys.dtype), ("State", state.dtype), ("DK", dk), ("ROWS", rows)],
        grid=(dk * (dv // rows), heads, len(deltas)),
        threadgroup=(dk, 1, 1),
        output_shapes=[state.shape] * len(deltas),
        output_dtypes=[state.dtype] * len(deltas),
    )


def commit_windows(
    windows: Sequence[mx.array], rows: Sequence[mx.array], path: mx.array, *, launch: Launch = launch_on_metal
) -> list[mx.array]:
    """gated_delta.commit_windows, 9 layers to a launch; layers are of one shape, as those of a model are."""
    padded, length = at_least_8(path), path.size
    most = (_MOST_BUFFERS - 2) // 3
    pairs = list(zip(windows, rows, strict=True))
    parts = [pairs[i : i + most] for i in range(0, len(pairs), most)]
    return [window for part in parts for window in _commit_windows(part, padded, length, launch)]


def _commit_windows(
    pairs: Sequence[tuple[mx.array, mx.array]], path: mx.array, length: int, launch: Launch
) -> list[mx.array]:
    window = pairs[0][0]
    count, channels = window.shape[1:]
    group = 256
    return launch(
        _commit_kernel("commit_window", ("window", "rows"), len(pairs)),
        [*(x.astype(window.dtype) for pair in pairs for x in pair), path, _sizes(channels, count, length)],
        template=[("T", window.dtype)],
        grid=(group * -(-channels // group), count, len(pairs)),
        threadgroup=(group, 1, 1),
        output_shapes=[window.shape] * len(pairs),
        output_dtypes=[window.dtype] * len(pairs),
    )


@cache
def _commit_kernel(name: str, inputs: tuple[str, ...], layers: int) -> MetalKernel:
    named = tuple(f"{x}_{i}" for i in range(layers) for x in inputs)
    return MetalKernel(name, (*named, "path", "sizes"), tuple(f"committed_{i}" for i in range(layers)), repeat=layers)


def fits(count: int, dk: int, dv: int, dtype: mx.Dtype) -> bool:
    """Whether `tree_gated_delta` serves trees of up to `count` nodes in layers with such heads.

    Heads are cut into tiles of 8 x 8, and a state's 8 rows lie in a simdgroup's registers.
    """
    return (
        count <= MAX_NODES and dk % 8 == dv % 8 == 0 and dk <= 256 and _simdgroups(_capacity(count), dk, dv, dtype) > 0
    )


def _capacity(count: int) -> int:
    """Nodes that the kernel is compiled for: few sizes, because each is a compilation of its own."""
    return next(n for n in (32, 64, MAX_NODES) if n >= count)


def _simdgroups(nodes: int, dk: int, dv: int, dtype: mx.Dtype) -> int:
    """Simdgroups to a threadgroup: as many as divide the state's rows and have room for their part of U in
    threadgroup memory, because together they make what all need; no more than 8, so that heads are cut into
    enough threadgroups for a large GPU.  0 where not even one has room."""
    shared = 16 * (dk + 8) * dtype.size + 64 * nodes + 256 + 8 * nodes
    return next(
        (s for s in range(8, 0, -1) if dv // 8 % s == 0 and shared + 32 * nodes * s <= _THREADGROUP_BYTES),
        0,
    )


@lru_cache(maxsize=256)
def _sizes(*numbers: int) -> mx.array:
    """Sizes that all layers of a round share."""
    return mx.array(numbers, mx.int32)
