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

from typing import NamedTuple

import mlx.core as mx


class TreeDelta(NamedTuple):
    """What a commit needs of a verification: u (H, N, Dv), keys (H, N, Dk), l (H, N), all fp32, for H value
    heads; and the state (1, H, Dv, Dk) before the tree."""

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
    dtype = queries.dtype
    queries, keys, values = (_by_head(x) for x in (queries, keys, values))
    log_gates, beta = (x[0].T.astype(mx.float32) for x in (log_gates, beta))
    keys, queries, state = (x.astype(mx.float32) for x in (keys, queries, state))

    log_decay = log_gates @ ancestors.T.astype(mx.float32)  # (H, N)
    between = mx.where(ancestors, log_decay[:, :, None] - log_decay[:, None, :], -mx.inf)
    decay = mx.exp(between)  # (H, N, N), 0 where a is no ancestor of t
    products = mx.concatenate([keys, queries], axis=1) @ keys.swapaxes(1, 2)  # (Hk, 2 N, N)
    products = mx.repeat(products, groups, axis=0)
    keys, queries = mx.repeat(keys, groups, axis=0), mx.repeat(queries, groups, axis=0)
    count = keys.shape[1]

    from_state = mx.concatenate([keys, queries], axis=1) @ state[0].swapaxes(1, 2)  # the one read of S_0
    from_state = from_state * mx.exp(mx.concatenate([log_decay, log_decay], axis=1))[..., None]
    system = mx.tril(beta[..., None] * decay * products[:, :count], k=-1)
    right = beta[..., None] * (values - from_state[:, :count])
    updates = unit_lower_inverse(system) @ right
    outputs = from_state[:, count:] + (decay * products[:, count:]) @ updates
    delta = TreeDelta(updates, keys, log_decay, state)
    return outputs.transpose(1, 0, 2)[None].astype(dtype), delta


def commit_delta(delta: TreeDelta, path: mx.array) -> mx.array:
    """The state (1, H, Dv, Dk), fp32, after the nodes of `path` (m,), root first: a rank-m update."""
    log_decay = mx.take(delta.log_decay, path, axis=1)
    weights = mx.exp(log_decay[:, -1:] - log_decay)[..., None]
    updates = mx.take(delta.updates, path, axis=1) * weights
    rank_m = updates.swapaxes(1, 2) @ mx.take(delta.keys, path, axis=1)
    return mx.exp(log_decay[:, -1])[None, :, None, None] * delta.state + rank_m[None]


def unit_lower_inverse(strict: mx.array) -> mx.array:
    """(I + strict)^-1 for strictly lower triangular matrices (..., N, N), fp32.

    Doubles the diagonal blocks that are inverted: from X = diag(X1, X2) to [[X1, 0], [-X2 L X1, X2]], log2(N)
    steps of two matrix products each.  As stable as substitution, which would take N steps; a sum of powers
    of `strict` would cancel catastrophically for long chains.
    """
    count = strict.shape[-1]
    rows = mx.arange(count)
    inverse = mx.broadcast_to(mx.eye(count), strict.shape)
    size = 1
    while size < count:
        block = rows // size
        below = (block[:, None] % 2 == 1) & (block[:, None] - 1 == block[None])
        inverse = inverse - inverse @ mx.where(below, strict, 0.0) @ inverse
        size *= 2
    return inverse


def tree_conv(rows: mx.array, before: mx.array, weight: mx.array, table: mx.array) -> mx.array:
    """Depthwise causal convolution in which a node's past is its path: (1, N, C) in the rows' dtype.

    rows: (1, N, C), one per node.  before: (1, kernel - 1, C), the rows before the root.
    weight: (C, kernel, 1), as nn.Conv1d keeps it.
    table: (N, kernel) int32, for each node and tap, oldest first, its place in [before, rows].
    """
    past = mx.take(mx.concatenate([before, rows], axis=1)[0], table, axis=0)  # (N, kernel, C)
    taps = weight[..., 0].T.astype(mx.float32)
    return (past.astype(mx.float32) * taps).sum(axis=1)[None].astype(rows.dtype)


def _by_head(x: mx.array) -> mx.array:
    """(1, N, H, D) -> (H, N, D) fp32."""
    return x[0].transpose(1, 0, 2).astype(mx.float32)
