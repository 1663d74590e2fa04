"""Which functions a verification runs in place of mlx-lm's and MLX's own operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx

from mlx_ddtree.kernels.gated_delta import REFERENCES, DeltaKernels
from mlx_ddtree.kernels.gather_rows import GatherRows, gather_rows
from mlx_ddtree.kernels.head import HeadTopK
from mlx_ddtree.kernels.topk import start_top_k
from mlx_ddtree.kernels.tree_attention import KeysOrValues, TreeMask


class TreeAttention(Protocol):
    """A form of kernels.tree_attention.tree_attention."""

    def __call__(
        self,
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
    ) -> mx.array: ...


@dataclass(frozen=True)
class KernelSet:
    """For verifications of one number of rows; None leaves a place to the operations that the model has.

    attention: of a tree's rows over context and tree; attention_from: behind so many tokens of context, or more.
    product: x (..., K) times quantised weights that share it; a form of kernels.quantized.shared_qmm.
    delta: gated delta layers, and the commit of their caches.
    gather_rows: the commit's rows of key-value caches.
    head_top_k: the LM head's best tokens; a form of kernels.head.head_top_k.
    names: of the kernels among these, by which another process can make the same set (tuning/choose.py).
    """

    attention: TreeAttention | None = None
    attention_from: int = 0
    product: Callable[..., list[mx.array]] | None = None
    delta: DeltaKernels = REFERENCES
    gather_rows: GatherRows = gather_rows
    head_top_k: Callable[..., HeadTopK] | None = None
    names: tuple[str, ...] = ()

    def attention_behind(self, context: int) -> TreeAttention | None:
        """What attends behind so many tokens of context; None: the operations that the model has."""
        return self.attention if context >= self.attention_from else None


MOST_ROWS = 128
"""Kernels are checked up to here (tuning/agree.py); larger verifications take MLX's operations."""
MLX = KernelSet()
"""MLX's operations everywhere."""


@dataclass(frozen=True)
class KernelChoice:
    """Sets by the number of rows that they are for, ascending; none: MLX's operations for all.

    start_top_k: the candidates of a draft; a form of kernels.topk.start_top_k.
    """

    sets: Mapping[int, KernelSet]
    start_top_k: Callable[[mx.array, int], mx.array] = start_top_k

    def of(self, rows: int) -> KernelSet:
        """The set of the next larger size, or of the largest; none beyond MOST_ROWS."""
        if rows > MOST_ROWS:
            return MLX
        larger = [n for n in self.sets if n >= rows] or list(self.sets)[-1:]
        return self.sets[larger[0]] if larger else MLX


NO_KERNELS = KernelChoice({})


def always(kernels: KernelSet) -> KernelChoice:
    """For every number of rows."""
    return KernelChoice({1: kernels})
