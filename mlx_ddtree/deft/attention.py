"""DeFT's second phase (arXiv 2404.00242, section 3) in MLX's operations, and its use for draft trees.

Every group of a plan gives its queries a partial output and the logarithm of its softmax's sum (lse); a query's
partials are merged by M = max lse, w = exp(lse - M), out = sum w o / sum w.  kernels/tree_attention.py is the same
for Apple GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.deft.plans import Plan, PlanKind, PrefixTree, make_plan
from mlx_ddtree.kernels.metal import note_wait
from mlx_ddtree.kernels.tree_attention import KeysOrValues, TreeMask, packing_of, parts_of, plain, tree_attention_ops

BLOCK = 2048
"""Rows of a block: MLX's operations want large ones, where a kernel's tiles are small."""
TINY = 1e-30
"""In place of an empty sum."""


@dataclass(frozen=True)
class _Group:
    """rows: of the cache; queries: in depth-first order; mask: (queries, rows), or None where all see all."""

    rows: slice | mx.array
    queries: slice
    mask: mx.array | None


class PreparedPlan:
    """A plan's indices and masks as arrays, which all layers share.

    A group's clear rows and the others become groups of their own: the mask touches no more than it must, and the
    clear rows mostly are one slice of the cache.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        in_order = bool((plan.queries == np.arange(len(plan.queries))).all())
        self.order = None if in_order else mx.array(plan.queries)
        self.back = None if in_order else mx.array(np.argsort(plan.queries))
        self.groups = [group for i in range(len(plan)) for group in self._groups(i)]
        self.parts, self.absent = _partials_of([group.queries for group in self.groups], len(plan.queries))

    def _groups(self, i: int) -> Iterator[_Group]:
        plan, (first, end) = self.plan, self.plan.rows[i]
        queries, clear = slice(*plan.takes[i].tolist()), first + plan.clear[i]
        if clear > first:
            yield _Group(_places(plan.slots[first:clear]), queries, None)
        if clear < end:
            yield _Group(_places(plan.slots[clear:end]), queries, mx.array(plan.mask(i)))


def _partials_of(groups: Sequence[slice], count: int) -> tuple[mx.array, mx.array | None]:
    """Which of the groups' partials, one after the other, are those of each query: (count, most), and where there are
    fewer (count, most) bool true."""
    owners = np.concatenate([np.arange(group.start, group.stop) for group in groups] or [np.zeros(0, np.int64)])
    order, numbers = np.argsort(owners, kind="stable"), np.bincount(owners, minlength=count)
    table = np.zeros((count, max(1, numbers.max())), np.int64)
    filled = np.arange(table.shape[1]) < numbers[:, None]
    table[filled] = order
    return mx.array(table), None if filled.all() else mx.array(~filled)


def _places(slots: NDArray[np.int64]) -> slice | mx.array:
    """A slice where they follow each other."""
    run = bool((np.diff(slots) == 1).all())
    return slice(int(slots[0]), int(slots[-1]) + 1) if run else mx.array(slots)


def deft_attention(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    plan: Plan | PreparedPlan,
    *,
    scale: float,
    sinks: mx.array | None = None,
) -> mx.array:
    """Softmax attention of a plan's queries, (1, Hq, Q, Dv) in the queries' dtype; lazy.

    queries: (1, Hq, Q, D), as the plan's tree numbers them.
    keys, values: (1, Hkv, rows of the cache, D or Dv), Hq a multiple of Hkv; or quantised, as mlx_lm's
        QuantizedKVCache has them.
    sinks: (Hq,) logits that join the softmax's denominator.

    Computed in fp32.  A query that sees nothing gets zeros.
    """
    ready = plan if isinstance(plan, PreparedPlan) else PreparedPlan(plan)
    _, heads, count, dim = queries.shape
    kv_heads = parts_of(keys)[0].shape[1]
    folded = (queries.astype(mx.float32) * scale).reshape(kv_heads, heads // kv_heads, count, dim)
    if ready.order is not None:
        folded = mx.take(folded, ready.order, axis=2)
    parts = [_partial(folded[:, :, group.queries], keys, values, group, dim) for group in ready.groups]
    logits = None if sinks is None else sinks.astype(mx.float32).reshape(kv_heads, -1, 1)
    if not parts:
        return mx.zeros((1, heads, count, _columns(values, keys, dim)), queries.dtype)
    if len(parts) == 1 and logits is None and parts[0][1].shape[2] == count:
        out = parts[0][0]
    else:
        out = _merge(parts, ready, logits)
    if ready.back is not None:
        out = mx.take(out, ready.back, axis=2)
    return out.reshape(1, heads, count, -1).astype(queries.dtype)


def _partial(
    queries: mx.array, keys: KeysOrValues, values: KeysOrValues, group: _Group, dim: int
) -> tuple[mx.array, mx.array]:
    """queries (Hkv, heads of each, q, D) -> output (.., q, Dv) of the group's softmax alone, and its lse (.., q)."""
    shape = queries.shape[:3]
    k, v = (_rows(x, group.rows, keys, dim) for x in (keys, values))  # (Hkv, rows, D)
    scores = queries.reshape(shape[0], -1, dim) @ k.swapaxes(-1, -2)  # the heads of a KV head are more rows
    if group.mask is not None:
        scores = mx.where(group.mask, scores.reshape(*shape, -1), -mx.inf).reshape(scores.shape)
    largest = scores.max(axis=-1, keepdims=True)
    if group.mask is not None:
        largest = mx.where(largest == -mx.inf, 0.0, largest)  # of a query that sees none of the rows
    weights = mx.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    out = (weights @ v) / mx.maximum(total, TINY)
    return out.reshape(*shape, -1), (largest + mx.log(total)).reshape(shape)


def _merge(parts: Sequence[tuple[mx.array, mx.array]], plan: PreparedPlan, sinks: mx.array | None) -> mx.array:
    """The groups' partials -> outputs (Hkv, heads of each, Q, Dv)."""
    out, lse = (mx.take(mx.concatenate([part[i] for part in parts], axis=2), plan.parts, axis=2) for i in (0, 1))
    if plan.absent is not None:
        lse = mx.where(plan.absent, -mx.inf, lse)
    largest = lse.max(axis=-1) if sinks is None else mx.maximum(lse.max(axis=-1), sinks)
    largest = mx.where(largest == -mx.inf, 0.0, largest)  # of a query that sees nothing
    weights = mx.exp(lse - largest[..., None])
    total = weights.sum(axis=-1)
    if sinks is not None:
        total = total + mx.exp(sinks - largest)
    merged = (weights[..., None, :] @ out)[..., 0, :]
    return merged / mx.maximum(total, TINY)[..., None]


def _rows(x: KeysOrValues, rows: slice | mx.array, keys: KeysOrValues, dim: int) -> mx.array:
    """(Hkv, rows, D) of a cache in fp32.  keys, dim: tell how it is packed, if it is."""
    parts = parts_of(x)
    taken = tuple(p[:, :, rows] if isinstance(rows, slice) else mx.take(p, rows, axis=2) for p in parts)
    return plain(taken, packing_of(parts_of(keys), dim))[0].astype(mx.float32)


def _columns(values: KeysOrValues, keys: KeysOrValues, dim: int) -> int:
    return _rows(values, slice(0, 1), keys, dim).shape[-1]


class DeftAttention:
    """A draft tree's attention by a plan, for `KernelSet.attention`.

    Layers with a window, where a row's context depends on its depth, keep the attention with one mask.
    """

    def __init__(self, kind: PlanKind = "flatten", *, block: int = BLOCK, cap: int | None = None) -> None:
        self.kind, self.block, self.cap = kind, block, cap
        self._last: tuple[mx.array, int, int, PreparedPlan] | None = None

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
    ) -> mx.array:
        """As kernels.tree_attention.tree_attention."""
        if window is not None:
            how = {"context": context, "scale": scale, "window": window, "keep": keep, "sinks": sinks}
            return tree_attention_ops(queries, keys, values, tree, **how)  # type: ignore[arg-type]
        plan = self.plan(tree, context, queries.shape[2])
        return deft_attention(queries, keys, values, plan, scale=scale, sinks=sinks)

    def plan(self, tree: TreeMask, context: int, rows: int) -> PreparedPlan:
        """The layers of a verification ask for the same one."""
        last = self._last
        if last is None or last[0] is not tree.words or last[1:3] != (context, rows):
            prefixes = PrefixTree.behind(context, parents_of(tree, rows))
            ready = PreparedPlan(make_plan(prefixes, self.kind, block=self.block, cap=self.cap))
            self._last = last = (tree.words, context, rows, ready)
        return last[3]


def parents_of(tree: TreeMask, rows: int) -> NDArray[np.int64]:
    """(rows,) the parent of each row, -1 where it sees no other: the deepest of those that it sees.

    It reads them now: a verification that is made before its tree is known cannot use what comes of it.
    """
    note_wait()
    words, depths = np.asarray(tree.words)[:rows], np.asarray(tree.depths)[:rows]
    seen = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little", count=rows).astype(np.bool_)
    np.fill_diagonal(seen, False)
    deepest = np.where(seen, depths, -1)
    return np.where(seen.any(axis=1), deepest.argmax(axis=1), -1)
