"""The edges of top-p, min-p and top-k, and which tokens rounding could move across them.

These filters keep the best tokens of a row, down to an edge.  Whoever asks whether a draw could have been another one
has to know which dropped tokens could have been kept, and whether the drawn one could have been dropped.  Both answers
are on the safe side, and take one pass over the logits each, where drawing again at the worst rounding sorts them anew.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

MOST_KEPT = 1024
"""Tokens among which the edge of top-p is looked for first."""
ROUNDING_OF_SUMS = 1e-5
"""How far sums of probabilities may be off by themselves."""


class Crossing(NamedTuple):
    """What some rounding could move across a filter's edge.

    enters: (N, V) bool, the tokens that it could keep, beside those that are kept anyway.
    leaves: (N,) bool, whether it could drop the chosen token.
    """

    enters: mx.array
    leaves: mx.array


def top_p_edges(log_probs: NDArray[np.float32], top_p: float) -> NDArray[np.float32]:
    """(N, 1) the lowest log-probability that mlx-lm's top-p keeps of every row (N, V).

    On a processor, where MLX sorts rows whole and one element at a time: numpy sorts the best ones, and all of them
    only where these have too little of the probability.
    """
    least = top_p * np.exp(log_probs).sum(axis=1, keepdims=True)
    vocab = log_probs.shape[1]
    for count in (min(MOST_KEPT, vocab), vocab):
        best = np.partition(log_probs, vocab - count, axis=1)[:, vocab - count :]
        best = -np.sort(-best, axis=1)
        probabilities = np.exp(best)
        above = np.cumsum(probabilities, axis=1) - probabilities
        if count == vocab or (above[:, -1:] >= least).all():
            break
    last = (above < least).sum(axis=1, keepdims=True) - 1
    edges: NDArray[np.float32] = np.take_along_axis(best, last, axis=1)
    return edges


def both(one: Crossing, other: Crossing) -> Crossing:
    """What crosses two filters, one behind the other: tokens enter by both, and either may drop the chosen one."""
    return Crossing(one.enters & other.enters, one.leaves | other.leaves)


def across_top_p(log_probs: mx.array, kept: mx.array, chosen: mx.array, top_p: float, bound: float) -> Crossing:
    """The edge of top-p: a token is kept where those above it have less than `top_p` of the probability.

    log_probs: (N, V), any float type.  kept: (N, V) bool, what the filter left.  chosen: (N, 1).
    bound: how far rounding can move two logits of a row against each other.
    """
    slack = max(2 * bound, ROUNDING_OF_SUMS)
    log_probs = log_probs.astype(mx.float32)
    probabilities = mx.exp(log_probs)
    # 1. What is kept stays above what is further below it than `bound`, and is enough by itself.
    enough = mx.where(kept, probabilities, 0.0).sum(axis=-1, keepdims=True) * (1 - slack) >= top_p
    enters = (log_probs > _lowest(log_probs, kept) - bound) | ~enough
    # 2. What could stand above the chosen token.
    own = mx.take_along_axis(log_probs, chosen, axis=-1)
    above = mx.where(log_probs > own - bound, probabilities, 0.0).sum(axis=-1, keepdims=True) - mx.exp(own)
    return Crossing(enters, (above * (1 + slack) >= top_p)[:, 0])


def across_min_p(logits: mx.array, chosen: mx.array, min_p: float, least: int, bound: float) -> Crossing:
    """The edge of min-p, at a share of the best token's probability, behind the `least` best tokens at the earliest;
    other arguments as for `across_top_p`."""
    edge = logits.max(axis=-1, keepdims=True) + math.log(min_p)
    own = mx.take_along_axis(logits, chosen, axis=-1)
    by_share = Crossing(logits > edge - bound, (own < edge + bound)[:, 0])
    if least == 1:  # the best token is never dropped
        return by_share
    lowest = mx.topk(logits, least, axis=-1).min(axis=-1, keepdims=True)
    by_rank = Crossing(logits > lowest - bound, _may_sink(logits, chosen, least, bound))
    return Crossing(by_share.enters | by_rank.enters, by_share.leaves & by_rank.leaves)


def across_top_k(logits: mx.array, kept: mx.array, chosen: mx.array, top_k: int, bound: float) -> Crossing:
    """The edge of top-k, behind the best `top_k` tokens; kept: what all filters left; others as for `across_top_p`."""
    full = kept.sum(axis=-1, keepdims=True) >= top_k  # else another filter has kept fewer
    enters = (logits > _lowest(logits, kept) - bound) | ~full
    return Crossing(enters, _may_sink(logits, chosen, top_k, bound))


def _may_sink(logits: mx.array, chosen: mx.array, rank: int, bound: float) -> mx.array:
    """(N,) bool, whether so many other tokens could be better than the chosen one."""
    own = mx.take_along_axis(logits, chosen, axis=-1)
    return (logits > own - bound).sum(axis=-1) > rank


def _lowest(logits: mx.array, kept: mx.array) -> mx.array:
    """(N, 1) the lowest logit that is kept."""
    return mx.where(kept, logits, mx.inf).min(axis=-1, keepdims=True)
