"""Gated delta attention over a draft tree, in MLX operations: every node reads its parent's state.

Per value head the state S (Dv, Dk) follows S_t = g_t S_p + u_t k_t^T with u_t = beta_t (v_t - g_t S_p k_t), and
o_t = S_t q_t, where p is the node's parent and S_0 the state before the tree.  No node's state is ever
formed: with l_t the sum of log g from the root to t, the u of all nodes solve one triangular system,

    (I + A) U = diag(beta) (V - diag(exp l) K S_0^T),   A[t, a] = beta_t exp(l_t - l_a) (k_a . k_t)

for strict ancestors a of t, and the path to a node m leaves the state

    S_m = exp(l_m) S_0 + sum over its nodes a of exp(l_m - l_a) u_a k_a^T.

So S_0 is read once for the whole tree and written once, by the commit.  All exponents are <= 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np


class TreeDelta(NamedTuple):
    """What a commit needs of a verification: u (H, N, Dv) and l (H, N), fp32, for H value heads; the keys
    (1, N, Hk, Dk) and the state (1, H, Dv, Dk) before the tree, as they were given."""

    updates: mx.array
    keys: mx.array
    log_decay: mx.array
    state: mx.array


def tree_gated_delta(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    log_gates: mx.array,
    beta: mx.array,
    state: mx.array,
    ancestors: mx.array,
) -> tuple[mx.array, TreeDelta]:
    """Outputs (1, N, Hv, Dv) in the queries' dtype, computed in fp32, and what the commit needs.

    queries, keys: (1, N, Hk, Dk), normalised.  values: (1, N, Hv, Dv), Hv a multiple of Hk.
    log_gates: (1, N, Hv), natural log of g, <= 0.  beta: (1, N, Hv).
    state: (1, Hv, Dv, Dk).
    ancestors: (N, N) bool, row t true at t's ancestors and t itself; parents come before children.
    """
    groups = values.shape[2] // keys.shape[2]
    dtype, before = queries.dtype, (keys, state)
    queries, keys, values = (_by_head(x) for x in (queries, keys, values))
    log_gates, beta = (x.squeeze(0).T.astype(mx.float32) for x in (log_gates, beta))
    state = state.squeeze(0).astype(mx.float32)  # x[0] would copy

    log_decay = log_gates @ ancestors.T.astype(mx.float32)  # (H, N)
    between = mx.where(ancestors, log_decay[:, :, None] - log_decay[:, None, :], -mx.inf)
    decay = mx.exp(between)  # (H, N, N), 0 where a is no ancestor of t
    products = mx.concatenate([keys, queries], axis=1) @ keys.swapaxes(1, 2)  # (Hk, 2 N, N)
    products = mx.repeat(products, groups, axis=0)
    keys, queries = mx.repeat(keys, groups, axis=0), mx.repeat(queries, groups, axis=0)
    count = keys.shape[1]

    from_state = mx.concatenate([keys, queries], axis=1) @ state.swapaxes(1, 2)  # the one read of S_0
    from_state = from_state * mx.exp(mx.concatenate([log_decay, log_decay], axis=1))[..., None]
    system = mx.tril(beta[..., None] * decay * products[:, :count], k=-1)
    right = beta[..., None] * (values - from_state[:, :count])
    updates = unit_lower_inverse(system) @ right
    outputs = from_state[:, count:] + (decay * products[:, count:]) @ updates
    delta = TreeDelta(updates, before[0], log_decay, before[1])
    return outputs.transpose(1, 0, 2)[None].astype(dtype), delta


def commit_delta(delta: TreeDelta, path: mx.array) -> mx.array:
    """The state (1, H, Dv, Dk), in the dtype it had, after the nodes of `path` (m,), root first: a rank-m update."""
    log_decay = mx.take(delta.log_decay, path, axis=1)
    weights = mx.exp(log_decay[:, -1:] - log_decay)[..., None]
    updates = mx.take(delta.updates, path, axis=1) * weights
    keys = _by_head(mx.take(delta.keys, path, axis=1))
    keys = mx.repeat(keys, updates.shape[0] // keys.shape[0], axis=0)
    decayed = mx.exp(log_decay[:, -1])[None, :, None, None] * delta.state
    return (decayed + (updates.swapaxes(1, 2) @ keys)[None]).astype(delta.state.dtype)


def commit_states(deltas: Sequence[TreeDelta], path: mx.array) -> list[mx.array]:
    """`commit_delta` of every layer."""
    return [commit_delta(delta, path) for delta in deltas]


def unit_lower_inverse(strict: mx.array) -> mx.array:
    """(I + strict)^-1 for strictly lower triangular matrices (..., N, N), fp32.

    Doubles the diagonal blocks that are inverted: from X = diag(X1, X2) to [[X1, 0], [-X2 L X1, X2]], log2(N)
    steps of two matrix products each.  As stable as substitution, which would take N steps; a sum of powers
    of `strict` would cancel catastrophically for long chains.
    """
    identity, blocks = _doubling(strict.shape[-1])
    inverse = mx.broadcast_to(identity, strict.shape)
    for below in blocks:
        inverse = inverse - inverse @ mx.where(below, strict, 0.0) @ inverse
    return inverse


@lru_cache(maxsize=128)
def _doubling(count: int) -> tuple[mx.array, list[mx.array]]:
    """The identity, and for block sizes 1, 2, 4, ... where L of the pairs of blocks stands, (N, N) bool."""
    masks, size, rows = [], 1, np.arange(count)
    while size < count:
        block = rows // size
        masks.append(mx.array((block[:, None] % 2 == 1) & (block[:, None] - 1 == block[None])))
        size *= 2
    return mx.array(np.eye(count, dtype=np.float32)), masks


def tree_conv(rows: mx.array, before: mx.array, weight: mx.array, table: mx.array) -> mx.array:
    """Depthwise causal convolution in which a node's past is its path: (1, N, C) in the rows' dtype.

    rows: (1, N, C), one per node.  before: (1, kernel - 1, C), the rows before the root.
    weight: (C, kernel, 1), as nn.Conv1d keeps it.
    table: (N, kernel) int32, for each node and tap, oldest first, its place in [before, rows].
    """
    past = mx.take(mx.concatenate([before, rows], axis=1).squeeze(0), table, axis=0)  # (N, kernel, C)
    taps = weight.squeeze(-1).T.astype(mx.float32)
    return (past.astype(mx.float32) * taps).sum(axis=1)[None].astype(rows.dtype)


def tree_conv_qkv(
    rows: mx.array, before: mx.array, weight: mx.array, table: mx.array, key_dim: int
) -> tuple[mx.array, mx.array, mx.array]:
    """`tree_conv` and SiLU: queries and keys (1, N, key_dim), values (1, N, C - 2 key_dim)."""
    queries, keys, values = mx.split(nn.silu(tree_conv(rows, before, weight, table)), [key_dim, 2 * key_dim], axis=-1)
    return queries, keys, values


def commit_windows(windows: Sequence[mx.array], rows: Sequence[mx.array], path: mx.array) -> list[mx.array]:
    """For every layer, the last rows of [window, the path's rows], as many as the window (1, kernel - 1, C) has.

    rows: (1, N, C) each, one per node.  path: (m,) int32.
    """
    return [_commit_window(window, x, path) for window, x in zip(windows, rows, strict=True)]


def _commit_window(window: mx.array, rows: mx.array, path: mx.array) -> mx.array:
    count, length = window.shape[1], path.size
    if length >= count:
        return mx.take(rows, path[length - count :], axis=1)
    return mx.concatenate([window[:, length:], mx.take(rows, path, axis=1)], axis=1)


@dataclass(frozen=True)
class DeltaKernels:
    """What gated delta layers under a tree call: the functions of this module, or launchers of the same names.

    packed_ancestors: tree_gated_delta takes ancestors as bits of words, not as a mask.
    max_rows: larger trees take the functions of this module.
    """

    tree_conv_qkv: Callable[..., tuple[mx.array, mx.array, mx.array]] = tree_conv_qkv
    tree_gated_delta: Callable[..., tuple[mx.array, TreeDelta]] = tree_gated_delta
    commit_states: Callable[..., list[mx.array]] = commit_states
    commit_windows: Callable[..., list[mx.array]] = commit_windows
    packed_ancestors: bool = False
    max_rows: int | None = None


REFERENCES = DeltaKernels()


def _by_head(x: mx.array) -> mx.array:
    """(1, N, H, D) -> (H, N, D) fp32."""
    return x.squeeze(0).transpose(1, 0, 2).astype(mx.float32)
