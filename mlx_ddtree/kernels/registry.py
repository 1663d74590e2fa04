"""Every Metal kernel beside its plain-MLX reference: what may take its place, and the sets that verifications use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx

from mlx_ddtree.kernels.choice import MLX, KernelChoice, KernelSet
from mlx_ddtree.kernels.gated_delta import REFERENCES
from mlx_ddtree.kernels.gated_delta_metal import delta_kernels
from mlx_ddtree.kernels.gather_rows import gather_rows, launch_gather_rows
from mlx_ddtree.kernels.head import head_top_k, head_top_k_reference
from mlx_ddtree.kernels.metal import Launch, launch_on_metal
from mlx_ddtree.kernels.quantized import quantized_matmul, verify_qmm
from mlx_ddtree.kernels.topk import topk_logprobs
from mlx_ddtree.kernels.tree_attention import tree_attention, tree_attention_ops

DRAFT = 0
"""In place of a number of rows: what a draft uses."""
TOP_K = "topk_logprobs"
TopKStart = Callable[[mx.array, int], mx.array]


@dataclass(frozen=True)
class Option:
    """A kernel: the fields of a KernelSet that use it, and the same fields by its reference, which takes the
    same arguments."""

    name: str
    kernel: Mapping[str, Any]
    reference: Mapping[str, Any]


def options(launch: Launch) -> list[Option]:
    """All kernels that a verification may use."""
    by_reference = replace(REFERENCES, tree_gated_delta=_delta_by_words, packed_ancestors=True)
    return [
        Option(
            "tree_attention", {"attention": partial(tree_attention, launch=launch)}, {"attention": tree_attention_ops}
        ),
        Option("verify_qmm", {"product": partial(verify_qmm, launch=launch)}, {"product": quantized_matmul}),
        Option("tree_gated_delta", {"delta": delta_kernels(launch)}, {"delta": by_reference}),
        Option("head_topk", {"head_top_k": partial(head_top_k, launch=launch)}, {"head_top_k": head_top_k_reference}),
        Option(
            "gather_rows", {"gather_rows": partial(launch_gather_rows, launch=launch)}, {"gather_rows": gather_rows}
        ),
    ]


def kernel_choice(chosen: Mapping[int, Collection[str]], launch: Launch = launch_on_metal) -> KernelChoice:
    """From names to the functions."""
    known = options(launch)
    sets = {rows: set_of(names, known) for rows, names in sorted(chosen.items()) if rows != DRAFT}
    if TOP_K in chosen.get(DRAFT, ()):
        return KernelChoice(sets, partial(topk_logprobs, launch=launch))
    return KernelChoice(sets)


def set_of(names: Collection[str], known: Sequence[Option]) -> KernelSet:
    kernels = MLX
    for option in known:
        if option.name in names:
            kernels = replace(kernels, **option.kernel, names=(*kernels.names, option.name))
    return kernels


def _delta_by_words(*args: mx.array) -> Any:
    """The reference, from ancestors as bits."""
    *arrays, words = args
    count, columns = arrays[0].shape[1], mx.arange(arrays[0].shape[1])
    bits = mx.take(words[:count], columns // 32, axis=1) >> (columns % 32).astype(mx.uint32)
    return REFERENCES.tree_gated_delta(*arrays, (bits & 1).astype(mx.bool_))
