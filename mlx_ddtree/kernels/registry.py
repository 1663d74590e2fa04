"""Every Metal kernel beside its plain-MLX reference: what may take its place, and the sets that verifications use.

A kernel that was chosen for a part of its calls has that part in its name, behind an @:
'verify_qmm@4096+1024+1024x4096' multiplies 4096 inputs by three matrices of these columns only, 'tree_attention@4096'
attends from 4096 tokens of context on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mlx.core as mx

from mlx_ddtree.kernels.choice import MLX, KernelChoice, KernelSet
from mlx_ddtree.kernels.gated_delta import REFERENCES
from mlx_ddtree.kernels.gated_delta_metal import delta_kernels
from mlx_ddtree.kernels.gather_rows import gather_rows, launch_gather_rows
from mlx_ddtree.kernels.guard import Guard
from mlx_ddtree.kernels.head import head_top_k, head_top_k_reference
from mlx_ddtree.kernels.metal import Launch, launch_on_metal
from mlx_ddtree.kernels.quantized import SharedInput, shared_matmul, shared_qmm
from mlx_ddtree.kernels.topk import start_top_k, topk_logprobs
from mlx_ddtree.kernels.tree_attention import tree_attention, tree_attention_ops

DRAFT = 0
"""In place of a number of rows: what a draft uses."""
TOP_K = "topk_logprobs"
ATTENTION = "tree_attention"
PRODUCT = "verify_qmm"
_SHAPES = re.compile(r"\d+(\+\d+)*x\d+")
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
        Option(ATTENTION, {"attention": partial(tree_attention, launch=launch)}, {"attention": tree_attention_ops}),
        Option(PRODUCT, {"product": partial(shared_qmm, launch=launch)}, {"product": shared_matmul}),
        Option("tree_gated_delta", {"delta": delta_kernels(launch)}, {"delta": by_reference}),
        Option("head_topk", {"head_top_k": partial(head_top_k, launch=launch)}, {"head_top_k": head_top_k_reference}),
        Option(
            "gather_rows", {"gather_rows": partial(launch_gather_rows, launch=launch)}, {"gather_rows": gather_rows}
        ),
    ]


def kernel_choice(chosen: Mapping[int, Collection[str]], launch: Launch = launch_on_metal) -> KernelChoice:
    """From names to the functions; one that fails later gives way to its reference."""
    known = options(launch)
    guard = Guard()
    sets = {rows: set_of(names, known, guard) for rows, names in sorted(chosen.items()) if rows != DRAFT}
    if TOP_K in chosen.get(DRAFT, ()):
        return KernelChoice(sets, guard.over(TOP_K, partial(topk_logprobs, launch=launch), start_top_k))
    return KernelChoice(sets)


def set_of(names: Collection[str], known: Sequence[Option], guard: Guard) -> KernelSet:
    """The set of the kernels among `known` that have one of the names."""
    kernels = MLX
    for option in known:
        mine = [name for name in names if name.partition("@")[0] == option.name]
        if not mine:
            continue
        fields = {
            field: guard.over(option.name, kernel, option.reference[field]) for field, kernel in option.kernel.items()
        }
        parts = {name.partition("@")[2] for name in mine}
        kernels = replace(kernels, **_narrowed(option.name, fields, parts), names=(*kernels.names, *mine))
    return kernels


def attention_from(context: int) -> str:
    """The name of the attention that is used behind so many tokens of context, or more."""
    return f"{ATTENTION}@{context}" if context else ATTENTION


def _narrowed(name: str, fields: dict[str, Any], parts: Collection[str]) -> dict[str, Any]:
    """The fields of a kernel that is for a part of its calls; an unnamed part is all of them.

    What a part's name does not say as this version does is left to MLX's operations.
    """
    if "" in parts:
        return fields
    if name == ATTENTION and (contexts := [int(part) for part in parts if part.isdigit()]):
        return fields | {"attention_from": min(contexts)}
    if name == PRODUCT and (shapes := frozenset(part for part in parts if _SHAPES.fullmatch(part))):
        return {"product": _product_of(shapes, fields["product"])}
    return {}


def _product_of(shapes: Collection[str], kernel: Callable[..., list[mx.array]]) -> Callable[..., list[mx.array]]:
    """The kernel for weights of these output and input columns, MLX's product for others."""

    def product(x: mx.array, weights: SharedInput) -> list[mx.array]:
        return kernel(x, weights) if weights.name in shapes else shared_matmul(x, weights)

    return product


def _delta_by_words(*args: mx.array) -> Any:
    """The reference, from ancestors as bits."""
    *arrays, words = args
    count, columns = arrays[0].shape[1], mx.arange(arrays[0].shape[1])
    bits = mx.take(words[:count], columns // 32, axis=1) >> (columns % 32).astype(mx.uint32)
    return REFERENCES.tree_gated_delta(*arrays, (bits & 1).astype(mx.bool_))
