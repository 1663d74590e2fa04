"""Top-k log-probabilities of a few rows of logits, on the host as one small array; and how far the best are ahead.

On a GPU the device finds them.  Where the logits are in the processor's own memory, numpy does: MLX's CPU backend
computes exp and partition one element at a time, numpy many.  What cannot be left out is the exponential of every
logit, which the normalisation needs: half of the time there.
"""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.kernels.metal import Launch, MetalKernel, at_least_8, launch_on_metal

TopK = tuple[NDArray[np.int32], NDArray[np.float32]]
GROUPS = 512
"""Groups of tokens whose largest logits are compared first."""


def top_k_log_probs(logits: mx.array, k: int) -> TopK:
    """The k largest entries of every row, best first, ties by token id.

    logits: (L, V), any float type; 1 <= k <= V.
    Returns token_ids (L, k) int32 and log_probs (L, k) float32, normalised over all V.
    """
    return finish_top_k(start_top_k(logits, k), k)


def start_top_k(logits: mx.array, k: int) -> mx.array:
    """The device's part, lazy; for `finish_top_k`.

    On MLX's CPU backend it is nothing: numpy reads the same memory and is faster (`top_k_by_numpy`).
    """
    logits = logits.astype(mx.float32)
    return logits if mx.default_device() == mx.cpu else _by_mlx(logits, k)


def _by_mlx(logits: mx.array, k: int) -> mx.array:
    """(L, 2 k) int32: token ids, and the log-probabilities' bits."""
    if k == 1:
        token_ids = mx.argmax(logits, axis=-1, keepdims=True)
    else:
        token_ids = mx.argpartition(-logits, kth=k - 1, axis=-1)[:, :k]
    top = mx.take_along_axis(logits, token_ids, axis=-1) - mx.logsumexp(logits, axis=-1, keepdims=True)
    # One array, one wait; in unified memory numpy sees it without a copy.
    return mx.concatenate([token_ids.astype(mx.int32), top.view(mx.int32)], axis=-1)


def best_token_ids(started: mx.array) -> mx.array:
    """(L,) int32, the best token of every row of what `start_top_k(logits, 1)` gave; lazy, on the device."""
    if started.dtype == mx.int32:
        return started[:, 0]
    return mx.argmax(started, axis=-1).astype(mx.int32)


def finish_top_k(started: mx.array, k: int) -> TopK:
    """The host's part: waits for the device."""
    rows = np.asarray(started)
    if rows.dtype != np.int32:
        return top_k_by_numpy(rows, k)
    token_ids, log_probs = rows[:, :k], rows[:, k:].view(np.float32)
    order = np.lexsort((token_ids, -log_probs), axis=-1)
    return np.take_along_axis(token_ids, order, -1), np.take_along_axis(log_probs, order, -1)


def top_k_by_numpy(logits: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k largest entries of every row of logits (L, V), best first, ties by token id; 1 <= k <= V.

    Returns token_ids (L, k) int32 and log_probs (L, k) float32, normalised over all V.
    """
    log_sums = log_sums_by_numpy(logits)
    if k == 1:
        token_ids = logits.argmax(axis=1, keepdims=True)
    else:
        token_ids = _largest(logits, k)
    return token_ids.astype(np.int32), np.take_along_axis(logits, token_ids, axis=1) - log_sums


def log_sums_by_numpy(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 1) the logarithm of the sum of exponentials of every row of logits (N, V)."""
    best = logits.max(axis=1, keepdims=True)
    exponentials = logits - best
    np.exp(exponentials, out=exponentials)
    log_sums: NDArray[np.float32] = best + np.log(exponentials.sum(axis=1, keepdims=True))
    return log_sums


def suits_numpy(logits: mx.array) -> bool:
    """Whether numpy can read these logits where they are, in the processor's own memory."""
    return mx.default_device() == mx.cpu and logits.dtype == mx.float32


def lead_over_others(row: NDArray[np.float32], token_id: int) -> float:
    """The logit of a token minus the largest of all others; row: (V,) logits."""
    before = row[:token_id].max(initial=-np.inf)
    behind = row[token_id + 1 :].max(initial=-np.inf)
    return float(row[token_id] - max(before, behind))


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


def top_margins(logits: mx.array, best: mx.array) -> mx.array:
    """(N,) float32, the difference between the two largest entries of every row; lazy.

    logits: (N, V), any float type.  best: (N,) where each row's largest entry is.
    """
    others = mx.put_along_axis(logits, best[:, None], mx.array(-mx.inf, logits.dtype), axis=-1)
    highest = mx.take_along_axis(logits, best[:, None], axis=-1)[:, 0]
    return highest.astype(mx.float32) - others.max(axis=-1).astype(mx.float32)


MOST = 64  # entries that the kernels' lists hold in threadgroup memory
_SIMDGROUPS = 8
_EACH = 16  # logits of a thread
_CHUNKS = MetalKernel("topk_logprobs", ("logits", "size"), ("entries", "sums"))
_MERGE = MetalKernel("topk_merge", ("entries", "sums", "size"), ("best", "log_sums"))


def topk_logprobs(logits: mx.array, k: int, *, launch: Launch = launch_on_metal) -> mx.array:
    """What `start_top_k` gives, (L, 2 k) int32 for `finish_top_k`, by two launches that read the logits once.

    logits: (L, V), any float type; 1 <= k <= V.  Ties go to the smaller token id.  For more than MOST it is MLX's
    operations that give it.
    """
    if k > MOST or logits.size < 8:
        return _by_mlx(logits.astype(mx.float32), k)
    rows, vocab = logits.shape
    chunks = -(-vocab // (32 * _SIMDGROUPS * _EACH))
    entries, sums = launch(
        _CHUNKS,
        [logits, mx.array([vocab, chunks, k], mx.int32)],
        template=[("T", logits.dtype), ("COUNT", _EACH), ("SIMDGROUPS", _SIMDGROUPS), ("MOST", MOST)],
        grid=(chunks * 32 * _SIMDGROUPS, rows, 1),
        threadgroup=(32 * _SIMDGROUPS, 1, 1),
        output_shapes=[(rows, chunks, k, 2), (rows, chunks, 2)],
        output_dtypes=[mx.uint32, mx.float32],
    )
    return merge_top_k(entries, sums, launch=launch)[0]


def merge_top_k(
    entries: mx.array, sums: mx.array, *, log_probs: bool = True, launch: Launch = launch_on_metal
) -> tuple[mx.array, mx.array]:
    """Lists of parts of the vocabulary into one per row, as metal/topk.h describes them.

    entries: (L, lists, k, 2) uint32.  sums: (L, lists, 2) float32.
    Returns (L, 2 k) int32, the k best ids, best first, and the bits of their log-probabilities, or of their logits
    without `log_probs`; and the log of each row's sum of exponentials (L,) float32.
    """
    rows, lists, k, _ = entries.shape
    each = next(n for n in (1, 4, 16, 64) if 32 * _SIMDGROUPS * n >= lists)
    best, log_sums = launch(
        _MERGE,
        [at_least_8(entries), at_least_8(sums), mx.array([lists, k], mx.int32)],
        template=[("LISTS", each), ("SIMDGROUPS", _SIMDGROUPS), ("LOG_PROBS", log_probs)],
        grid=(rows * 32 * _SIMDGROUPS, 1, 1),
        threadgroup=(32 * _SIMDGROUPS, 1, 1),
        output_shapes=[(rows, 2 * k), (rows,)],
        output_dtypes=[mx.int32, mx.float32],
    )
    return best, log_sums
