"""Which tokens of a long prompt stay, from one importance score per token (PFlash; approximate).

The prompt is cut into chunks.  Protected spans stay whatever they cost, then the first and last chunks, then chunks
around earlier mentions of what the prompt's end asks for (anchors), then the chunks with the best scores, up to a
hard cap.  Every kept token is counted under the first of these reasons that took it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlx_ddtree.errors import OptionError, PromptError

REASONS = ("protected", "head", "tail", "anchors", "scores")
GRAM = 4
"""Tokens of an anchor."""
ASKING = 96
"""The last tokens of a prompt, whose 4-grams are looked up in the rest."""
FEW = 8
"""A 4-gram with more matches than this says nothing about where to look."""


@dataclass(frozen=True)
class Selection:
    """What is kept of a prompt, and why.

    positions: (K,) int32, ascending: the kept tokens of the prompt's `length`.
    requested: ceil(keep_ratio * length) tokens; at most one chunk more is kept unless protected spans need it.
    forced: kept tokens by the first reason that took them; they sum to K.
    anchors_left_out: tokens around earlier mentions that did not fit.
    """

    positions: NDArray[np.int32]
    length: int
    requested: int
    forced: dict[str, int] = field(default_factory=dict)
    chunk: int = 32
    anchors_left_out: int = 0

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Runs of kept positions, (first, last + 1)."""
        breaks = np.flatnonzero(np.diff(self.positions) > 1) + 1
        return [(int(run[0]), int(run[-1]) + 1) for run in np.split(self.positions, breaks) if len(run)]

    @property
    def ratio(self) -> float:
        """Kept tokens / tokens."""
        return len(self.positions) / self.length

    @property
    def over(self) -> int:
        """Tokens above the cap, which only protected spans can bring about (and words made whole by the bridge)."""
        return max(0, len(self.positions) - self.requested - self.chunk)


def select(
    scores: ArrayLike,
    token_ids: Sequence[int] | NDArray[np.integer],
    keep_ratio: float,
    *,
    protected: Sequence[tuple[int, int]] = (),
    chunk: int = 32,
    pool: int = 13,
    head: int = 8,
    tail: int = 24,
    anchors: bool = True,
) -> Selection:
    """The tokens to keep of a prompt of S tokens.

    scores: (S,) importance, larger is more important; averaged over `pool` neighbours, then over each chunk.
    keep_ratio: of all S tokens, above 0 and up to 1.
    protected: spans (first, last + 1) that stay whatever they cost.
    chunk: tokens that are kept or dropped together.
    head, tail: first and last chunks that stay.  Both shrink alike so as to take half of the allowance at most.
    anchors: keep chunks around earlier exact matches of the last tokens' 4-grams.

    When protected spans leave the other tokens less than half of keep_ratio, these get that half all the same, and
    `Selection.over` says by how much that exceeds the cap of ceil(keep_ratio * S) tokens and a chunk.  Raises
    OptionError for values out of range, PromptError when nothing between head and tail could be kept.
    """
    ids, values = np.asarray(token_ids, np.int64), np.asarray(scores, np.float64)
    _check(values, ids, keep_ratio, chunk, pool, head, tail)
    taken = _Taken(len(ids), chunk, _protected_mask(protected, len(ids)))
    requested = math.ceil(keep_ratio * len(ids))
    if requested == len(ids):
        taken.take("scores", range(taken.chunks))
        return taken.selection(requested)
    rest = len(ids) - taken.count
    allowance = max(requested - taken.count, math.ceil(keep_ratio * rest / 2))
    limit = taken.count + allowance
    least = chunk * (2 if head or tail else 1)  # a chunk at an end and one between the ends
    if allowance < least:
        raise PromptError(_refusal(taken, keep_ratio, least))
    _take_edges(taken, head, tail, allowance // 2)
    order = np.argsort(-_chunk_scores(values, chunk, pool), kind="stable")
    left_out = 0
    if anchors:
        near = _anchor_chunks(ids, chunk, taken.chunks)
        ranked = order[np.argsort(near[order], kind="stable")]  # matches before their neighbours, each by score
        ranked = ranked[near[ranked] <= _radius(len(ids))]
        left_out = taken.take("anchors", ranked, (taken.count + limit + 1) // 2)
    taken.take("scores", order, limit)
    return taken.selection(requested, left_out)


class _Taken:
    """The tokens taken so far, and what the others of each chunk would cost."""

    def __init__(self, length: int, chunk: int, protected: NDArray[np.bool_]) -> None:
        self.mask, self.chunk = protected, chunk
        self.chunks = -(-length // chunk)
        self.costs = np.add.reduceat(~protected, np.arange(0, length, chunk), dtype=np.int64)
        self.count = int(protected.sum())
        self.forced = dict.fromkeys(REASONS, 0) | {"protected": self.count}

    def take(self, reason: str, chunks: Iterable[int], limit: float = math.inf) -> int:
        """Take chunks in this order until `limit` tokens are taken in all; returns tokens that are left out."""
        left_out = 0
        for index in chunks:
            cost = int(self.costs[index])
            if self.count >= limit:
                left_out += cost
            elif cost:
                self.mask[index * self.chunk : (index + 1) * self.chunk] = True
                self.costs[index] = 0
                self.count += cost
                self.forced[reason] += cost
        return left_out

    def selection(self, requested: int, left_out: int = 0) -> Selection:
        positions = np.flatnonzero(self.mask).astype(np.int32)
        return Selection(positions, len(self.mask), requested, self.forced, self.chunk, left_out)


def _check(
    scores: NDArray[np.float64], ids: NDArray[np.int64], keep_ratio: float, chunk: int, pool: int, head: int, tail: int
) -> None:
    if not 0 < keep_ratio <= 1:
        raise OptionError(f"keep ratio {keep_ratio} is not above 0 and at most 1")
    if chunk < 1 or pool < 1 or head < 0 or tail < 0:
        raise OptionError(f"chunk {chunk} and pool {pool} must be at least 1, head {head} and tail {tail} at least 0")
    if not len(ids):
        raise PromptError("the prompt is empty")
    if scores.shape != ids.shape or not np.isfinite(scores).all():
        raise OptionError(f"scores must be {ids.shape} finite numbers, one for each token; got {scores.shape}")


def _protected_mask(spans: Sequence[tuple[int, int]], length: int) -> NDArray[np.bool_]:
    mask = np.zeros(length, np.bool_)
    for first, end in spans:
        if not 0 <= first <= end <= length:
            raise OptionError(f"protected span {(first, end)} is not inside the prompt's {length} tokens")
        mask[first:end] = True
    return mask


def _take_edges(taken: _Taken, head: int, tail: int, room: int) -> None:
    """Take first and last chunks, fewer of both if they cost more than `room` tokens."""
    sums = np.concatenate([[0], np.cumsum(taken.costs)])
    head, tail = min(head, taken.chunks), min(tail, taken.chunks)
    asked = max(head, 1), max(tail, 1)
    while sums[head] + sums[-1] - sums[max(head, taken.chunks - tail)] > room:
        if head / asked[0] >= tail / asked[1]:
            head -= 1
        else:
            tail -= 1
    taken.take("head", range(head))
    taken.take("tail", range(taken.chunks - tail, taken.chunks))


def _refusal(taken: _Taken, keep_ratio: float, least: int) -> str:
    length, protected = len(taken.mask), taken.forced["protected"]
    if protected == length:
        return "all of the prompt is protected, so nothing can be dropped; protect less or turn the compression off"
    enough = min((protected + least) / length, 2 * least / (length - protected), 1.0)
    return (
        f"keep ratio {keep_ratio} of {length} tokens ({protected} of them protected) leaves no chunk of {taken.chunk} "
        f"tokens between head and tail; raise the keep ratio to {math.ceil(enough * 1000) / 1000} or turn the "
        "compression off"
    )


def _chunk_scores(scores: NDArray[np.float64], chunk: int, pool: int) -> NDArray[np.float64]:
    """(S,) -> (chunks,): the mean in each chunk of the mean over `pool` neighbours, fewer at the ends."""
    length = len(scores)
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    places = np.arange(length)
    first, end = np.maximum(places - pool // 2, 0), np.minimum(places + (pool + 1) // 2, length)
    smooth = (sums[end] - sums[first]) / (end - first)
    starts = np.arange(0, length, chunk)
    return np.add.reduceat(smooth, starts) / np.diff(np.append(starts, length))


def _radius(length: int) -> int:
    """Chunks on either side of a match that are kept with it."""
    return 2 if length < 32_768 else 4 if length < 65_536 else 8


def _anchor_chunks(ids: NDArray[np.int64], chunk: int, chunks: int) -> NDArray[np.int64]:
    """(chunks,): how many chunks away the nearest match is.

    A match is a place before the last 96 tokens where one of their 4-grams begins, if that has at most 8 such places.
    """
    hits = _matches(ids)
    distance = np.full(chunks, chunks, np.int64)
    if len(hits):
        places = np.unique(hits // chunk)
        right = np.searchsorted(places, np.arange(chunks))
        near = places[np.stack([np.minimum(right, len(places) - 1), np.maximum(right - 1, 0)])]
        distance = np.abs(near - np.arange(chunks)).min(axis=0)
    return distance


def _matches(ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Places before the last 96 tokens where a rare 4-gram of these stands."""
    before = len(ids) - ASKING
    if before < 1:
        return np.empty(0, np.intp)
    # Numbers for 4-grams, by way of numbers for pairs, so that each comparison is exact and S log S in all.
    pairs = np.unique(ids[:-1] * 2**32 + ids[1:], return_inverse=True)[1]
    grams = np.unique(pairs[:-2] * 2**32 + pairs[2:], return_inverse=True)[1]
    asked = np.zeros(grams.max() + 1, np.bool_)
    asked[grams[before:]] = True
    asked &= np.bincount(grams[:before], minlength=len(asked)) <= FEW
    return np.flatnonzero(asked[grams[:before]])
