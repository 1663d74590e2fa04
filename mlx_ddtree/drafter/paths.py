"""A draft's candidates where each is scored by the path before it: depth by depth, on the device, without a wait.

Trees want K candidates a position and the scores of all pairs of neighbours (tree/lattice.py).  A head that remembers
only the last token gives exactly these.  For one that remembers the path, every candidate keeps the state of the best
path that leads to it, so scores are exact along the best paths and near elsewhere.
"""

from __future__ import annotations

import mlx.core as mx

from mlx_ddtree.drafter.path_heads import Embed, PathHead
from mlx_ddtree.drafter.vocabulary import DraftVocabulary

POOL = 64
"""Tokens of a position, the best by the logits alone, among which a head chooses its candidates; what it would add to
the others' logits is left out of the sum over the vocabulary."""


def start_paths(
    head: PathHead,
    logits: mx.array,
    root: mx.array,
    hidden: mx.array,
    embed: Embed,
    vocabulary: DraftVocabulary | None = None,
    pool: int = POOL,
) -> mx.array:
    """Candidates and scores of pairs; lazy, for kernels.pairwise.finish_pairwise with `candidates_of(head, logits)`.

    logits: (L, V) without the head's part.  root: () the token before position 0.  hidden: (L, D).
    """
    logits = logits.astype(mx.float32)
    k = candidates_of(head, logits)
    pool_ids, pool_logits, others = _pools(logits, min(max(pool, k), logits.shape[-1]))
    rows = head.rows(pool_ids if vocabulary is None else vocabulary.draft_ids(pool_ids))
    parents = root[None]
    state = mx.zeros((1, head.state_size), hidden.dtype)
    paths = mx.zeros((1, 1))
    found = []
    for depth in range(len(hidden)):
        state, features = head.step(state, parents, hidden[depth], depth, embed)
        if depth == 0:  # one parent: the whole vocabulary costs one product
            bias = head.bias(features)
            whole = logits[0] + (bias if vocabulary is None else vocabulary.spread(bias, 0.0)).astype(mx.float32)
            ids = mx.argpartition(-whole[0], kth=k - 1)[:k]
            scores = whole[:, ids] - mx.logsumexp(whole, axis=-1, keepdims=True)
        else:
            scores = pool_logits[depth] + (features @ rows[depth].T).astype(mx.float32)
            scores = scores - mx.logaddexp(mx.logsumexp(scores, axis=-1, keepdims=True), others[depth])
            best = mx.argpartition(-(paths + scores).max(axis=0), kth=k - 1)[:k]
            ids, scores = pool_ids[depth][best], scores[:, best]
        # Every candidate goes on from its best parent.
        paths = paths + scores
        origin = paths.argmax(axis=0)
        state, paths, parents = state[origin], paths.max(axis=0)[:, None], ids
        found.append((ids.astype(mx.int32), mx.broadcast_to(scores, (k, k)).reshape(-1)))
    packed = [mx.concatenate([ids, scores.view(mx.int32)]) for ids, scores in found]
    return mx.stack(packed)


def candidates_of(head: PathHead, logits: mx.array) -> int:
    """Candidates a position."""
    return min(head.top_k, logits.shape[-1])


def _pools(logits: mx.array, size: int) -> tuple[mx.array, mx.array, mx.array]:
    """Logits (L, V) -> the `size` best tokens (L, size), their logits, and the log of the others' sum (L,)."""
    ids = mx.argpartition(-logits, kth=size - 1, axis=-1)[:, :size]
    rest = mx.put_along_axis(logits, ids, mx.array(-mx.inf), axis=-1)
    return ids, mx.take_along_axis(logits, ids, axis=-1), mx.logsumexp(rest, axis=-1)
