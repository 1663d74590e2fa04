"""The sizes of real models, at which `mlx_ddtree.doctor` checks and times every kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels import gated_delta, gated_delta_metal
from mlx_ddtree.kernels.gather_rows import gather_rows, launch_gather_rows
from mlx_ddtree.kernels.head import HeadWeights, head_top_k, head_top_k_reference
from mlx_ddtree.kernels.metal import Launch
from mlx_ddtree.kernels.quantized import SharedInput, shared_matmul, shared_qmm
from mlx_ddtree.kernels.topk import _by_mlx, topk_logprobs
from mlx_ddtree.kernels.tree_attention import TreeMask, tree_attention, tree_attention_ops


@dataclass(frozen=True)
class Case:
    """A kernel at one size.

    kernel, reference: compute the same, lazily, from the same arrays.
    """

    name: str
    size: str
    dtype: mx.Dtype
    kernel: Callable[[], Any]
    reference: Callable[[], Any]


def typical_cases(launch: Launch, dtype: mx.Dtype = mx.bfloat16, scale: int = 1) -> Iterator[Case]:
    """One after the other, so that only one case's arrays are in memory.  scale: divides the large dimensions."""
    for rows in (8, 16, 32):
        yield attention_case(launch, dtype, heads=32, kv_heads=8, head_dim=128, context=4096 // scale, rows=rows)
    for rows in (16, 32):
        yield attention_case(launch, dtype, heads=24, kv_heads=4, head_dim=256, context=4096 // scale, rows=rows)
    for rows in (4, 8, 16, 32):
        yield product_case(launch, dtype, depth=4096 // scale, columns=12288 // scale, rows=rows)
    yield head_case(launch, dtype, depth=max(2560 // scale // 64, 1) * 64, vocab=151936 // scale, rows=16)
    yield top_k_case(launch, dtype, vocab=151936 // scale, rows=15)
    yield delta_case(launch, dtype, key_heads=16 // min(scale, 8), heads=48 // min(scale, 8), rows=16)
    yield gather_case(launch, dtype, layers=max(36 // scale, 2))


def attention_case(
    launch: Launch, dtype: mx.Dtype, *, heads: int, kv_heads: int, head_dim: int, context: int, rows: int
) -> Case:
    queries = _random(1, (1, heads, rows, head_dim), dtype)
    keys, values = (_random(seed, (1, kv_heads, context + rows, head_dim), dtype) for seed in (2, 3))
    arguments = queries, keys, values, _tree(rows)
    how = {"context": context, "scale": head_dim**-0.5}
    return Case(
        "tree_attention",
        f"{heads}/{kv_heads} heads x {head_dim}, {context} keys, {rows} rows",
        dtype,
        partial(tree_attention, *arguments, **how, launch=launch),
        partial(tree_attention_ops, *arguments, **how),
    )


def product_case(launch: Launch, dtype: mx.Dtype, *, depth: int, columns: int, rows: int) -> Case:
    weights = SharedInput([mx.quantize(_random(1, (columns, depth), dtype), 64, 4)], 64, 4)
    x = _random(2, (1, rows, depth), dtype)
    return Case(
        "verify_qmm",
        f"{depth} x {columns}, 4 bits, {rows} rows",
        dtype,
        partial(shared_qmm, x, weights, launch=launch),
        partial(shared_matmul, x, weights),
    )


def head_case(launch: Launch, dtype: mx.Dtype, *, depth: int, vocab: int, rows: int) -> Case:
    head = HeadWeights(*mx.quantize(_random(1, (vocab, depth), dtype), 64, 4))
    hidden = _random(2, (rows, depth), dtype)
    return Case(
        "head_topk",
        f"{depth} x {vocab}, 4 bits, {rows} rows",
        dtype,
        partial(head_top_k, hidden, head, 2, launch=launch),
        partial(head_top_k_reference, hidden, head, 2),
    )


def top_k_case(launch: Launch, dtype: mx.Dtype, *, vocab: int, rows: int) -> Case:
    """Log-probabilities only: MLX's ids come in no order."""
    logits, k = _random(1, (rows, vocab), dtype) * 4, 16

    def log_probs(packed: mx.array) -> mx.array:
        return mx.sort(packed[:, k:].view(mx.float32), axis=-1)

    return Case(
        "topk_logprobs",
        f"{rows} rows of {vocab}, k {k}",
        dtype,
        lambda: log_probs(topk_logprobs(logits, k, launch=launch)),
        lambda: log_probs(_by_mlx(logits.astype(mx.float32), k)),
    )


def delta_case(launch: Launch, dtype: mx.Dtype, *, key_heads: int, heads: int, rows: int, dim: int = 128) -> Case:
    queries, keys = (_unit(_random(seed, (1, rows, key_heads, dim), mx.float32)).astype(dtype) for seed in (1, 2))
    values, state = _random(3, (1, rows, heads, dim), dtype), _random(4, (1, heads, dim, dim), mx.float32)
    gates, beta = -mx.abs(_random(5, (1, rows, heads), mx.float32)), mx.sigmoid(_random(6, (1, rows, heads), dtype))
    arguments, mask = (queries, keys, values, gates, beta, state), _ancestors(rows)
    return Case(
        "tree_gated_delta",
        f"{key_heads}/{heads} heads x {dim}, {rows} rows",
        dtype,
        lambda: gated_delta_metal.tree_gated_delta(*arguments, _tree(rows).words, launch=launch)[0],
        lambda: gated_delta.tree_gated_delta(*arguments, mx.array(mask))[0],
    )


def gather_case(launch: Launch, dtype: mx.Dtype, *, layers: int, heads: int = 8, dim: int = 128) -> Case:
    arrays, path = [_random(seed, (1, heads, 16, dim), dtype) for seed in range(2 * layers)], (0, 2, 5, 11)
    return Case(
        "gather_rows",
        f"{layers} layers of {heads} heads x {dim}, {len(path)} of 16 rows",
        dtype,
        partial(launch_gather_rows, arrays, path, launch=launch),
        partial(gather_rows, arrays, path),
    )


def _ancestors(rows: int) -> np.ndarray:
    """Ancestors of a tree in which every node has two children."""
    mask = np.eye(rows, dtype=np.bool_)
    for node in range(1, rows):
        mask[node] |= mask[(node - 1) // 2]
    return mask


def _tree(rows: int) -> TreeMask:
    mask = np.zeros((max(rows, 8), -(-rows // 32) * 32), np.bool_)
    mask[:rows, :rows] = _ancestors(rows)
    depths = mask.sum(axis=1) - 1
    return TreeMask(mx.array(np.packbits(mask, axis=1, bitorder="little").view(np.uint32)), mx.array(depths, mx.int32))


def _random(seed: int, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def _unit(x: mx.array) -> mx.array:
    return x / mx.linalg.norm(x, axis=-1, keepdims=True)
