"""Logits of which only some tokens count: all others become minus infinity."""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray


def masked(logits: mx.array, words: NDArray[np.uint32]) -> mx.array:
    """Logits (N, V) with the tokens of each row's set as they were and all others at -inf; lazy.

    words: (N, W); token t is in the set where bit t % 32 of word t // 32 is.  Words that are missing are empty.
    """
    bits = mx.array(_wide_enough(words, logits.shape[-1]))[:, :, None] >> mx.arange(32, dtype=mx.uint32) & 1
    allowed = bits.reshape(len(words), -1)[:, : logits.shape[-1]].astype(mx.bool_)
    return mx.where(allowed, logits, mx.array(-mx.inf, logits.dtype))


def masked_by_numpy(logits: NDArray[np.float32], words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """What `masked` gives, of logits that the processor has in its own memory."""
    octets = _wide_enough(words, logits.shape[1]).view(np.uint8)
    allowed = np.unpackbits(octets, axis=1, count=logits.shape[1], bitorder="little")
    return np.where(allowed.view(np.bool_), logits, np.float32(-np.inf))


def _wide_enough(words: NDArray[np.uint32], tokens: int) -> NDArray[np.uint32]:
    """Sets of so many tokens: a model may have more logits than its configuration has tokens."""
    missing = -(-tokens // 32) - words.shape[1]
    return words if missing <= 0 else np.pad(words, ((0, 0), (0, missing)))
