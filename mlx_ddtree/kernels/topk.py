"""Top-k log-probabilities of a few rows of logits, on the host as one small array."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


def top_k_log_probs(logits: mx.array, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k largest entries of every row, best first, ties by token id.

    logits: (L, V), any float type; 1 <= k <= V.
    Returns token_ids (L, k) int32 and log_probs (L, k) float32, normalised over all V.
    """
    logits = logits.astype(mx.float32)
    if k == 1:
        token_ids = mx.argmax(logits, axis=-1, keepdims=True)
    else:
        token_ids = mx.argpartition(-logits, kth=k - 1, axis=-1)[:, :k]
    top = mx.take_along_axis(logits, token_ids, axis=-1) - mx.logsumexp(logits, axis=-1, keepdims=True)
    # One array, one wait; in unified memory numpy sees it without a copy.
    packed = np.asarray(mx.concatenate([token_ids.astype(mx.int32), top.view(mx.int32)], axis=-1))
    token_ids_, log_probs = packed[:, :k], packed[:, k:].view(np.float32)
    order = np.lexsort((token_ids_, -log_probs), axis=-1)
    return np.take_along_axis(token_ids_, order, -1), np.take_along_axis(log_probs, order, -1)
