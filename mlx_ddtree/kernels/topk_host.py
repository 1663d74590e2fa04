"""Top-k log-probabilities and margins by numpy, for logits that the processor has in its own memory.

MLX's CPU backend computes exp and partition one element at a time, numpy many.  What cannot be left out is the
exponential of every logit, which the normalisation needs: half of the time here.
"""

import numpy as np
from numpy.typing import NDArray

GROUPS = 512
"""Groups of tokens whose largest logits are compared first."""


def top_k_by_numpy(logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k largest entries of every row of logits (L, V), best first, ties by token id; 1 <= k <= V.

    Returns token_ids (L, k) int32 and log_probs (L, k) float32, normalised over all V.
    """
    best = logits.max(axis=1, keepdims=True)
    exponentials = logits - best
    np.exp(exponentials, out=exponentials)
    log_sums = best + np.log(exponentials.sum(axis=1, keepdims=True))
    if k == 1:
        token_ids = logits.argmax(axis=1, keepdims=True)
    else:
        token_ids = _largest(logits, k)
    return token_ids.astype(np.int32), np.take_along_axis(logits, token_ids, axis=1) - log_sums


def best_and_margins(logits: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The id (N,) of the largest entry of every row of logits (N, V), ties by id, and its lead (N,) over all others."""
    rows = np.arange(len(logits))
    best = logits.argmax(axis=1)
    others = logits.copy()
    others[rows, best] = -np.inf
    return best, logits[rows, best] - others.max(axis=1)


def _largest(logits: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Ids (L, k) of the k largest entries of every row, best first, ties by id."""
    rows, vocab = logits.shape
    if vocab >= 2 * GROUPS and k < GROUPS:
        # 1. No group below the k-th largest group has one of the k largest entries.
        least = np.partition(_largest_of_groups(logits), -k, axis=1)[:, -k:][:, :1]
        # 2. The few entries that are left, row by row and by id; then those of a row by size.
        places = np.flatnonzero(logits >= least)
        row, token_ids = np.divmod(places, vocab)
        firsts = np.searchsorted(row, np.arange(rows + 1))
        if (np.diff(firsts) >= k).all():  # not so where some are nan
            order = np.lexsort((-logits[row, token_ids], row))
            return token_ids[order[firsts[:-1, None] + np.arange(k)]]
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def _largest_of_groups(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(L, GROUPS) the largest entry of each group: of every GROUPS-th token, so that one pass compares whole runs."""
    vocab = logits.shape[1]
    whole = vocab // GROUPS * GROUPS
    largest: NDArray[np.float32] = logits[:, :whole].reshape(len(logits), -1, GROUPS).max(axis=1)
    rest = logits[:, whole:]
    np.maximum(largest[:, : vocab - whole], rest, out=largest[:, : vocab - whole])
    return largest
