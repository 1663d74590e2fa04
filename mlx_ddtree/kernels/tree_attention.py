"""Attention of a draft tree's rows over the context and the tree, in the manner of DeFT (arXiv 2404.00242).

Keys and values are read once for all nodes and all query heads of their KV head.  Nothing is masked in the
context; in the tree a row's ancestors are bits.  Two launches: metal/tree_attention.h (metal/few_rows_attention.h
for fewer than 8 rows) over ranges of keys, then metal/merge_attention.h over what each range gave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels.attention_plan import plan_launch, threadgroups
from mlx_ddtree.kernels.metal import Launch, MetalKernel, at_least_8, launch_on_metal, settled

KeysOrValues = mx.array | tuple[mx.array, mx.array, mx.array]
"""(1, Hkv, C + N, D); or packed words, scales and biases, as mlx_lm's QuantizedKVCache has them."""
LARGEST = 256
"""Head size; twice as much would not leave a lane room for 8 rows."""


class TreeMask(NamedTuple):
    """A tree of N rows.  words: (>= N, ceil(N / 32)) uint32, in row i bit j % 32 of word j // 32 where i sees j,
    itself included.  depths: (>= N,) int32.  What stands behind the N-th row is never read."""

    words: mx.array
    depths: mx.array


_SHARED = ("words", "depths", "sizes")
_QUANTISED_PARTS = ("keys", "key_scales", "key_biases", "values", "value_scales", "value_biases")
_MANY = MetalKernel("tree_attention", ("queries", "keys", "values", *_SHARED), ("partial", "stats"), contiguous=False)
_FEW = MetalKernel("few_rows_attention", _MANY.inputs, _MANY.outputs, contiguous=False)
_QUANTISED = MetalKernel(
    "tree_attention_quantised", ("queries", *_QUANTISED_PARTS, *_SHARED), _MANY.outputs, contiguous=False
)
_MERGE = MetalKernel("merge_attention", ("partial", "stats", "sinks", "sizes"), ("out",))


def tree_attention(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    tree: TreeMask,
    *,
    context: int,
    scale: float,
    window: int | None = None,
    keep: int = 0,
    sinks: mx.array | None = None,
    launch: Launch = launch_on_metal,
) -> mx.array:
    """Softmax attention of a tree's rows, (1, Hq, N, Dv) in the queries' dtype; lazy.

    queries: (1, Hq, N, D), fp16, bf16 or fp32, D and Dv multiples of 16.
    keys, values: (1, Hkv, context + N, D or Dv) in the queries' dtype, Hq a multiple of Hkv; or both quantised to
        4 or 8 bits in groups of 32 or more.  Slices of a cache: only their last axis is contiguous, and nothing of
        them is copied.
    window: tokens that a row sees, by depth, itself among them; of the context's keys the `keep` first always.
    sinks: (Hq,) logits that join the softmax's denominator, as in mx.fast.scaled_dot_product_attention.
    """
    key_parts, value_parts = parts_of(keys), parts_of(values)
    shapes = queries.shape, tuple(x.shape for x in key_parts), value_parts[0].shape
    run = _settled(shapes, queries.dtype, context, scale, window, keep, launch)
    return run(queries, key_parts, value_parts, tree, sinks)


Shapes = tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[int, ...]]
"""Of queries, of the arrays that keys are stored as, and of the first one of values."""


@lru_cache(maxsize=64)
def _settled(
    shapes: Shapes, dtype: mx.Dtype, context: int, scale: float, window: int | None, keep: int, launch: Launch
) -> Callable[..., mx.array]:
    """(queries, key parts, value parts, tree, sinks) to the output: what layers of one kind share in a verification."""
    (_, query_heads, nodes, _), _, _ = shapes
    gap = _unseen(context, window, keep)
    compute, split = _launches(shapes, dtype, context - gap + nodes, window is not None)
    sizes = _sizes(context, nodes, split, window or 0, 0 if window is None else keep, gap, scale)
    both, no_sinks = settled(launch, compute), _no_sinks(query_heads)

    def run(
        queries: mx.array,
        key_parts: tuple[mx.array, ...],
        value_parts: tuple[mx.array, ...],
        tree: TreeMask,
        sinks: mx.array | None,
    ) -> mx.array:
        words, depths = tree
        words = words if words.size >= 8 else at_least_8(words)
        depths = depths if depths.size >= 8 else at_least_8(depths)
        sinks = no_sinks if sinks is None else at_least_8(sinks.astype(mx.float32))
        return both(sinks, queries, *key_parts, *value_parts, words, depths, sizes)[0]

    return run


def _launches(
    shapes: Shapes, dtype: mx.Dtype, length: int, windowed: bool
) -> tuple[Callable[..., list[mx.array]], int]:
    """(launch, sinks, queries, keys, values, words, depths, sizes) to the output by both launches; and how many of the
    `length` keys a range has."""
    (_, query_heads, nodes, head_dim), key_shapes, value_shape = shapes
    packing = _packing(key_shapes, head_dim)
    heads = key_shapes[0][1]
    value_dim = value_shape[-1] * (32 // packing[0] if packing else 1)
    rows, columns = query_heads // heads * nodes, max(head_dim, value_dim)
    plan = plan_launch(rows, heads, length, columns, dtype.size, _wanted(), matrices=packing is not None)
    kernel = _QUANTISED if packing else _FEW if plan.few else _MANY
    attend: dict[str, Any] = {
        "template": [
            *(("T", dtype), ("D", head_dim), ("DV", value_dim), ("WINDOW", windowed)),
            *([("ROWS", rows)] if plan.few else [("BLOCKS", plan.blocks), ("KEY_GROUPS", plan.key_groups)]),
            *([("BITS", packing[0]), ("GROUP", packing[1])] if packing else []),
        ],
        "grid": (32 * plan.simdgroups * plan.splits * plan.row_blocks, heads, 1),
        "threadgroup": (32 * plan.simdgroups, 1, 1),
        "output_shapes": [(heads, plan.splits, rows, value_dim), (max(8, heads * plan.splits * rows * 2),)],
        "output_dtypes": [mx.float32, mx.float32],
    }
    merge: dict[str, Any] = {
        "template": [("T", dtype), ("DV", value_dim), ("GROUPED", query_heads // heads)],
        "grid": (32, query_heads * nodes, 1),
        "threadgroup": (32, 1, 1),
        "output_shapes": [(1, query_heads, nodes, value_dim)],
        "output_dtypes": [dtype],
    }

    def compute(launch: Launch, sinks: mx.array, *inputs: mx.array) -> list[mx.array]:
        partial, stats = launch(kernel, inputs, **attend)
        return launch(_MERGE, [partial, stats, sinks, inputs[-1]], **merge)

    return compute, plan.split


def supports(queries: mx.array, keys: KeysOrValues, values: KeysOrValues) -> bool:
    """Whether `tree_attention` takes these."""
    key_parts, value_parts = parts_of(keys), parts_of(values)
    head_dim, value_dim, packing = queries.shape[-1], value_parts[0].shape[-1], packing_of(key_parts, queries.shape[-1])
    if packing:
        bits, group_size = packing
        value_dim = value_dim * 32 // bits
        known = bits in (4, 8) and group_size in (32, 64, 128) and value_parts[1].shape[-1] * group_size == value_dim
        known = known and key_parts[1].dtype == queries.dtype
    else:
        known = key_parts[0].dtype == value_parts[0].dtype == queries.dtype
    dims_fit = all(dim % 16 == 0 and dim <= LARGEST for dim in (head_dim, value_dim))
    return known and dims_fit and queries.shape[0] == 1 and queries.dtype in (mx.float16, mx.bfloat16, mx.float32)


def tree_attention_ops(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    tree: TreeMask,
    *,
    context: int,
    scale: float,
    window: int | None = None,
    keep: int = 0,
    sinks: mx.array | None = None,
) -> mx.array:
    """Attention of a tree's rows in MLX operations, with a mask of all rows and keys."""
    key_parts, mask = parts_of(keys), tree_mask(tree, queries.shape[2], context, window, keep)
    packing = packing_of(key_parts, queries.shape[-1])
    plain_keys, plain_values = plain(key_parts, packing), plain(parts_of(values), packing)
    return mx.fast.scaled_dot_product_attention(queries, plain_keys, plain_values, scale=scale, mask=mask, sinks=sinks)


def tree_mask(tree: TreeMask, nodes: int, context: int, window: int | None = None, keep: int = 0) -> mx.array:
    """(N, context + N) bool: where a row sees a key."""
    columns, depths = mx.arange(nodes), tree.depths[:nodes]
    words = mx.take(tree.words[:nodes], columns // 32, axis=1)
    tail = ((words >> (columns % 32).astype(mx.uint32)) & 1).astype(mx.bool_)
    seen = mx.ones((nodes, context), mx.bool_)
    if window is not None:
        reach, places = window - keep, mx.arange(context)[None]
        seen = (places > context - reach + depths[:, None]) | (places < keep)
        tail = tail & (depths[None] > depths[:, None] - reach)
    return mx.concatenate([seen, tail], axis=1)


def parts_of(x: KeysOrValues) -> tuple[mx.array, ...]:
    """The arrays that keys or values are stored as: one, or a quantised one's three."""
    return (x,) if isinstance(x, mx.array) else tuple(x)


def packing_of(key_parts: tuple[mx.array, ...], head_dim: int) -> tuple[int, int] | None:
    """Bits and group size of quantised keys, None of others."""
    return _packing([part.shape for part in key_parts], head_dim)


def _packing(key_shapes: Sequence[tuple[int, ...]], head_dim: int) -> tuple[int, int] | None:
    if len(key_shapes) != 3:
        return None
    return key_shapes[0][-1] * 32 // head_dim, head_dim // key_shapes[1][-1]


def plain(parts: tuple[mx.array, ...], packing: tuple[int, int] | None) -> mx.array:
    """Keys or values from their parts, dequantised if they are packed so."""
    if packing is None:
        return parts[0]
    words, scales, biases = parts
    return mx.dequantize(words, scales, biases, bits=packing[0], group_size=packing[1])


def _unseen(context: int, window: int | None, keep: int) -> int:
    """How many keys between the `keep` first and the root's window nobody sees."""
    return 0 if window is None else max(0, min(context, context - (window - keep) + 1) - keep)


@cache
def _wanted() -> int:
    return threadgroups(str(mx.device_info()["architecture"]))


@lru_cache(maxsize=64)
def _sizes(context: int, nodes: int, split: int, window: int, keep: int, gap: int, scale: float) -> mx.array:
    """What `Span` in metal/attention.h reads; layers of one kind share it."""
    base_2 = np.float32(scale * math.log2(math.e)).view(np.int32)
    return mx.array([context, nodes, split, window, keep, gap, int(base_2)], mx.int32)


@lru_cache(maxsize=64)
def _no_sinks(heads: int) -> mx.array:
    return mx.full((max(8, heads),), -1e30)
