"""Log-probabilities of candidates given their parents' tokens, on the host as one small array."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


def start_pairwise(logits: mx.array, k: int, edges: Callable[[mx.array], mx.array]) -> mx.array:
    """The k best tokens of every row and the scores of all pairs of neighbours; lazy, for `finish_pairwise`.

    logits: (L, V), any float type; 1 <= k <= V.  edges: from token ids (L, k) to what the parent adds to the
    logits, (L, k, k): [d, r, c] to candidate c of row d after candidate r of row d - 1.

    Only the candidates' logits change, but all V share the probability.
    """
    logits = logits.astype(mx.float32)
    token_ids = mx.argpartition(-logits, kth=k - 1, axis=-1)[:, :k]
    rest = mx.put_along_axis(logits, token_ids, mx.array(-mx.inf), axis=-1)
    others = mx.logsumexp(rest, axis=-1)[:, None, None]
    token_ids = token_ids.astype(mx.int32)
    changed = mx.take_along_axis(logits, token_ids, axis=-1)[:, None] + edges(token_ids)
    changed = changed - mx.logaddexp(mx.logsumexp(changed, axis=-1, keepdims=True), others)
    # One array, one wait; in unified memory numpy sees it without a copy.
    return mx.concatenate([token_ids, changed.reshape(len(token_ids), -1).view(mx.int32)], axis=-1)


def finish_pairwise(started: mx.array, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """token_ids (L, k) int32 in no order, log_probs (L, k, k) float32 normalised over all V; waits for the device."""
    rows = np.asarray(started)
    return rows[:, :k], np.ascontiguousarray(rows[:, k:]).view(np.float32).reshape(len(rows), k, k)
