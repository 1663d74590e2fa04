"""The LM head's best tokens for a verification's rows, without writing rows x vocabulary logits."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels.metal import Launch, MetalKernel, TemplateValue, at_least_8, launch_on_metal
from mlx_ddtree.kernels.quantized import tile_rows
from mlx_ddtree.kernels.topk import merge_top_k

WIDTH = 8  # simdgroups side by side
_PACKED_COLUMNS, _DENSE_COLUMNS = 16 * WIDTH, 8 * WIDTH  # tokens of a tile
MOST = 32  # of k: beyond, the tiles' lists outweigh the logits

_PACKED = MetalKernel("head_topk", ("x", "weight", "scales", "biases", "size"), ("entries", "sums"))
_DENSE = MetalKernel("head_topk_dense", ("x", "weight", "size"), ("entries", "sums"))


class HeadWeights(NamedTuple):
    """An LM head's weights: (V, D) in the hidden states' type, or mx.quantize's three arrays (affine)."""

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    group_size: int = 64
    bits: int = 4


class HeadTopK(NamedTuple):
    """token_ids (M, k) int32, best first, ties by id; their logits (M, k) float32; log_sum (M,) float32, the log of the
    sum of exponentials over the vocabulary."""

    token_ids: mx.array
    logits: mx.array
    log_sum: mx.array


def head_top_k_reference(hidden: mx.array, head: HeadWeights, k: int, *, soft_cap: float | None = None) -> HeadTopK:
    """`head_top_k` in MLX operations, which write all logits."""
    weight, scales, biases, group_size, bits = head
    if scales is None:
        logits = hidden @ weight.T
    else:
        logits = mx.quantized_matmul(hidden, weight, scales, biases, transpose=True, group_size=group_size, bits=bits)
    if soft_cap is not None:
        logits = mx.tanh(logits / soft_cap) * soft_cap
    logits = logits.astype(mx.float32)
    token_ids = mx.argsort(-logits, axis=-1)[:, :k]  # stable: ties by id
    return HeadTopK(
        token_ids.astype(mx.int32), mx.take_along_axis(logits, token_ids, -1), mx.logsumexp(logits, axis=-1)
    )


def head_top_k(
    hidden: mx.array,
    head: HeadWeights,
    k: int,
    *,
    soft_cap: float | None = None,
    fragments: mx.Dtype = mx.float32,
    launch: Launch = launch_on_metal,
) -> HeadTopK:
    """The k best tokens of every row of hidden (M, D), 1 <= M <= 32, 1 <= k <= min(V, MOST); D a multiple of 32.

    Logits are summed in fp32 and rounded to hidden's type, as are the steps of the soft cap, cap tanh(logit / cap):
    tokens tie where the model's own logits tie.  fragments: as for `verify_qmm`.
    """
    packed = head.scales is not None
    rows, depth = hidden.shape
    vocab, columns = head.weight.shape[0], _PACKED_COLUMNS if packed else _DENSE_COLUMNS
    tiles = -(-vocab // columns)
    cap = int(np.float32(soft_cap or 0.0).view(np.int32))
    weights = [at_least_8(w) for w in head[: 3 if packed else 1] if isinstance(w, mx.array)]
    template: list[tuple[str, TemplateValue]] = [
        ("T", hidden.dtype),
        ("F", fragments),
        ("ROWS", tile_rows(rows)),
        ("WIDTH", WIDTH),
    ]
    if packed:
        template += [("BITS", head.bits), ("GROUP", head.group_size)]
    entries, sums = launch(
        _PACKED if packed else _DENSE,
        [hidden, *weights, mx.array([rows, vocab, depth, k, cap, tiles], mx.int32)],
        template=template,
        grid=(tiles * 32 * WIDTH, 1, 1),
        threadgroup=(32 * WIDTH, 1, 1),
        output_shapes=[(rows, tiles, k, 2), (rows, tiles, 2)],
        output_dtypes=[mx.uint32, mx.float32],
    )
    best, log_sum = merge_top_k(entries, sums, log_probs=False, launch=launch)
    return HeadTopK(best[:, :k], best[:, k:].view(mx.float32), log_sum)
