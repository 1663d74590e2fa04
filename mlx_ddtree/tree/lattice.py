"""Candidates of a draft as a lattice of rows: which tokens may follow a node, how likely, and what follows them.

The draft tree is a part of this lattice's unfolding.  A row is shared by all nodes whose children
have the same candidates and scores, so a block drafter needs one row a position, or two where a node off
the spine (the drafter's own best path) is scored lower; a drafter whose scores depend on the parent's
token needs one row a parent token; a looked-up continuation adds one row a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.tree.candidates import best_ranks


@dataclass(slots=True)
class Row:
    """The children that a node may get.

    token_ids: distinct, best first.
    scores: natural log of the probability that the child is accepted once its parent is; never
        increasing, -inf for what must not enter.
    after: the row of each child's own children, None where the draft ends.
    """

    token_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    after: list[Row | None] = field(default_factory=list)


END = Row()
"""The children of a node where the draft ends: none."""


def block_rows(
    token_ids: NDArray[np.integer], spine: NDArray[np.floating], off_spine: NDArray[np.floating] | None = None
) -> Row:
    """The first row of a block drafter's lattice: candidates depend on the depth alone.

    token_ids: (L, K), distinct in a row.  spine: (L, K) log-probabilities, each row descending; of the
    children of nodes on the top-1 path, or of all nodes when off_spine, the same for the others, is None.
    """
    tokens, on_scores = token_ids.tolist(), _without_nan(spine).tolist()
    off_scores = None if off_spine is None else _without_nan(off_spine).tolist()
    on: Row | None = None
    off: Row | None = None
    for depth in range(len(tokens) - 1, -1, -1):
        rest = [off] * (len(tokens[depth]) - 1)
        on = Row(tokens[depth], on_scores[depth], [on, *rest])
        off = on if off_scores is None else Row(tokens[depth], off_scores[depth], [off, *rest])
    return on or END


def pairwise_rows(
    token_ids: NDArray[np.integer], spine: NDArray[np.floating], off_spine: NDArray[np.floating] | None = None
) -> Row:
    """The same for a drafter whose scores depend on the parent's token.

    spine, off_spine: (L, K, K) in any order; [d, r] scores the candidates of position d after candidate r of
    position d - 1.  At d = 0 the parent is the root and r = 0 is read.
    """
    on_scores = _without_nan(spine)
    off_scores = on_scores if off_spine is None else _without_nan(off_spine)
    path = best_ranks(on_scores)
    parents = np.concatenate([[0], path[:-1]]).astype(np.intp)[: len(path)]
    on_rows = _ranked(token_ids, on_scores[np.arange(len(path)), parents])
    off_rows = _ranked(np.broadcast_to(token_ids[:, None], off_scores.shape), off_scores)
    on: Row | None = None
    off: list[Row | None] = [None] * off_scores.shape[-1]
    for depth in range(len(path) - 1, -1, -1):
        order, tokens, scores = (part[depth] for part in on_rows)
        on = Row(tokens, scores, [on, *(off[c] for c in order[1:])])
        rows = zip(*(part[depth] for part in off_rows), strict=True)
        off = [Row(tokens, scores, [off[c] for c in order]) for order, tokens, scores in rows] if depth else off
    return on or END


def _ranked(token_ids: NDArray[np.integer], scores: NDArray[np.floating]) -> tuple[list, list, list]:
    """(places, tokens, scores), each a nested list, best first on the last axis."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    parts = order, np.take_along_axis(token_ids, order, axis=-1), np.take_along_axis(scores, order, axis=-1)
    return parts[0].tolist(), parts[1].tolist(), parts[2].tolist()


def candidate_rows(
    token_ids: NDArray[np.integer], spine: NDArray[np.floating], off_spine: NDArray[np.floating] | None = None
) -> Row:
    """Whichever of the two fits the scores' shape."""
    return (block_rows if spine.ndim == 2 else pairwise_rows)(token_ids, spine, off_spine)


def add_chain(first: Row, token_ids: Sequence[int], scores: Sequence[float], off_spine: Sequence[Row] = ()) -> Row:
    """The lattice with one more path from the root, which may be longer than the block.

    scores: log-probability of each token given the path before it.  Where the row has that token
    already, the larger score counts; the siblings share what probability is left.
    off_spine: per depth, the children of a chain token that the drafter did not propose; by depth
        from 1, may be shorter than the chain.
    """
    bases: list[Row] = [first]
    for depth, token in enumerate(token_ids, 1):
        base = bases[-1]
        known = base.after[base.token_ids.index(token)] if token in base.token_ids else None
        bases.append(known or (off_spine[depth] if depth < len(off_spine) else END))
    row = bases.pop()  # below the chain all stays as it is
    for base, token, score in zip(bases[::-1], token_ids[::-1], scores[::-1], strict=True):
        row = _with_child(base, token, score, row)
    return row


def best_chain(first: Row) -> tuple[list[int], list[float]]:
    """Tokens and scores of the path that follows every row's best child."""
    tokens, scores, row = [], [], first
    while row.token_ids and row.scores[0] > -math.inf:
        tokens.append(row.token_ids[0])
        scores.append(row.scores[0])
        row = row.after[0] or END
    return tokens, scores


def off_spine_rows(first: Row) -> list[Row]:
    """By depth, the rows of nodes off the spine; depth 0 has none and repeats the first row."""
    rows = [first]
    while (row := rows[-1].after[-1] if rows[-1].after else None) is not None:
        rows.append(row)
    return rows


def _with_child(base: Row, token: int, score: float, after: Row) -> Row:
    """`base` with `token` at its place, its score raised to `score`, and the others lowered to fit."""
    children = list(zip(base.token_ids, base.scores, base.after, strict=True))
    old = next((s for t, s, _ in children if t == token), -math.inf)
    score = max(score, old)
    rest, room = 1.0 - math.exp(min(old, 0.0)), 1.0 - math.exp(min(score, 0.0))
    shift = 0.0 if room >= rest else math.log(room / rest) if room > 0.0 else -math.inf
    others = [(t, s + shift, a) for t, s, a in children if t != token]
    place = next((i for i, (_, s, _) in enumerate(others) if s < score), len(others))
    others.insert(place, (token, score, after))
    return Row([t for t, _, _ in others], [s for _, s, _ in others], [a for _, _, a in others])


def _without_nan(log_probs: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.where(np.isnan(log_probs), -np.inf, log_probs)
