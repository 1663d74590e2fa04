"""A draft's candidates as a lattice: which tokens may follow a node, how likely each is, and what follows it.

The draft tree is a part of this lattice's unfolding.  One `NextTokens` is shared by all nodes whose children
have equal candidates and scores, so a block drafter needs one a position, or two where a node off
the spine (the drafter's own best path) is scored lower; a drafter whose scores depend on the parent's
token needs one a parent token; a looked-up continuation adds one a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Candidates(NamedTuple):
    """K candidate tokens for each of the L positions after the root, and how probable the drafter finds them.

    token_ids: (L, K) int32, distinct at each position.
    log_probs: float32, over the whole vocabulary.  (L, K), descending, where a position's scores are the same after
        every parent.  Or (L, K, K) in any order: [d, r] scores the candidates of position d after candidate r of
        position d - 1; at position 0 the parent is the root and r = 0 is read.
    """

    token_ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]

    @property
    def pairwise(self) -> bool:
        """Whether the scores depend on the parent's token."""
        return self.log_probs.ndim == 3

    def along(self, path: Sequence[int]) -> Candidates:
        """The n candidate lists that scored the tokens of a path from the root, best first: (n, K), n <= len(path).

        The lists end with the block.  Where scores depend on the parent, no list scores what follows a token that
        the drafter did not propose, so they end there too.
        """
        if not self.pairwise:
            return Candidates(self.token_ids[: len(path)], self.log_probs[: len(path)])
        parent_ranks = self._parent_ranks(path)
        count = min(len(parent_ranks), len(path))
        scores = self.log_probs[np.arange(count), parent_ranks[:count]]
        best_first = np.argsort(-scores, axis=-1, kind="stable")
        return Candidates(
            np.take_along_axis(self.token_ids[:count], best_first, axis=-1),
            np.take_along_axis(scores, best_first, axis=-1),
        )

    def _parent_ranks(self, path: Sequence[int]) -> list[int]:
        """For every token of the path that was scored, which candidate its parent is; 0 stands for the root."""
        ranks = [0]
        for candidates, token in zip(self.token_ids[:-1], path[:-1], strict=False):
            found = np.flatnonzero(candidates == token)
            if not found.size:
                break
            ranks.append(int(found[0]))
        return ranks

    def greedy(self) -> Candidates:
        """The drafter's own best path, (L, 1): the best child of the best child, and so on."""
        if not self.pairwise:
            return Candidates(self.token_ids[:, :1], self.log_probs[:, :1])
        ranks = best_ranks(self.log_probs)
        positions = np.arange(len(ranks))
        scores = self.log_probs[positions, ranks_of_parents(ranks), ranks]
        return Candidates(self.token_ids[positions, ranks][:, None], scores[:, None])


def best_ranks(log_probs: NDArray[np.floating]) -> NDArray[np.intp]:
    """The candidate (L,) that the greedy path takes at each position, by the scores (L, K, K) of pairs."""
    ranks: list[int] = []
    parent = 0
    for scores in log_probs:
        parent = int(scores[parent].argmax())
        ranks.append(parent)
    return np.array(ranks, np.intp)


def ranks_of_parents(ranks: NDArray[np.intp]) -> NDArray[np.intp]:
    """For the candidates (L,) of a path, the candidate (L,) before each of them; 0 stands for the root."""
    return np.concatenate([[0], ranks])[: len(ranks)].astype(np.intp)


@dataclass(slots=True)
class NextTokens:
    """The tokens that may follow a node.

    token_ids: distinct, best first.
    scores: natural log of the probability that the token is accepted once the node is; never
        increasing, -inf for what must not enter.
    after: what may follow each token, None where the draft ends.
    """

    token_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    after: Sequence[NextTokens | None] = field(default_factory=list)


END = NextTokens()
"""What follows a node where the draft ends: nothing."""


def candidate_lattice(
    token_ids: NDArray[np.integer], spine: NDArray[np.floating], off_spine: NDArray[np.floating] | None = None
) -> NextTokens:
    """What may follow the root, by a block of candidates with scores of either shape (see Candidates).

    token_ids: (L, K).  spine: (L, K) or (L, K, K) log-probabilities of the children of nodes on the spine.
    off_spine: those of the children of all other nodes; None: equal to `spine`.
    """
    if spine.ndim == 2:
        return block_lattice(token_ids, spine, off_spine)
    return pairwise_lattice(token_ids, spine, off_spine)


def block_lattice(
    token_ids: NDArray[np.integer], spine: NDArray[np.floating], off_spine: NDArray[np.floating] | None = None
) -> NextTokens:
    """What may follow the root by a block drafter, whose candidates depend on the depth alone.

    token_ids: (L, K), distinct at each position.  spine: (L, K) log-probabilities, descending at each position, of
    the children of nodes on the top-1 path.  off_spine: (L, K) those of other nodes; None: equal to `spine`.
    """
    tokens = token_ids.tolist()
    spine_scores = _without_nan(spine).tolist()
    off_spine_scores = None
    if off_spine is not None:
        off_spine_scores = _without_nan(off_spine).tolist()
    # From the block's end to its start, because a position links to the next one.
    on: NextTokens | None = None
    off: NextTokens | None = None
    for depth in reversed(range(len(tokens))):
        after_others = [off] * (len(tokens[depth]) - 1)
        on = NextTokens(tokens[depth], spine_scores[depth], [on, *after_others])
        if off_spine_scores is None:
            off = on
        else:
            off = NextTokens(tokens[depth], off_spine_scores[depth], [off, *after_others])
    return on or END


def pairwise_lattice(
    token_ids: NDArray[np.integer], spine: NDArray[np.floating], off_spine: NDArray[np.floating] | None = None
) -> NextTokens:
    """What may follow the root by a drafter whose scores depend on the parent's token.

    token_ids: (L, K), distinct at each position.  spine: (L, K, K) log-probabilities in any order; [d, r] scores the
    candidates of position d after candidate r of position d - 1.  At d = 0 the parent is the root and r = 0 is read.
    off_spine: (L, K, K) those of children of nodes off the spine, which follows every node's best child; None: equal
    to `spine`.
    """
    spine_scores = _without_nan(spine)
    off_spine_scores = spine_scores
    if off_spine is not None:
        off_spine_scores = _without_nan(off_spine)
    spine_ranks = best_ranks(spine_scores)
    length = len(spine_ranks)
    of_spine = _best_first(token_ids, spine_scores[np.arange(length), ranks_of_parents(spine_ranks)])
    of_pairs = _best_first(np.broadcast_to(token_ids[:, None], off_spine_scores.shape), off_spine_scores)
    # From the block's end to its start, because a position links to the next one.
    on: NextTokens | None = None
    off: list[NextTokens | None] = [None] * off_spine_scores.shape[-1]  # by the parent's rank
    for depth in reversed(range(length)):
        after_others = [off[rank] for rank in of_spine.ranks[depth][1:]]
        on = NextTokens(of_spine.token_ids[depth], of_spine.scores[depth], [on, *after_others])
        if depth > 0:
            off = _after_each_parent(of_pairs, depth, off)
    return on or END


@dataclass(slots=True)
class _BestFirst:
    """Candidates in descending order on the last axis, as nested lists; ranks: which candidate of the block each is."""

    ranks: list
    token_ids: list
    scores: list


def _best_first(token_ids: NDArray[np.integer], scores: NDArray[np.floating]) -> _BestFirst:
    order = np.argsort(-scores, axis=-1, kind="stable")
    return _BestFirst(
        order.tolist(),
        np.take_along_axis(token_ids, order, axis=-1).tolist(),
        np.take_along_axis(scores, order, axis=-1).tolist(),
    )


def _after_each_parent(of_pairs: _BestFirst, depth: int, off: list[NextTokens | None]) -> list[NextTokens | None]:
    """For each candidate of position depth - 1, what may follow it; `off` is what may follow position `depth`'s."""
    after_each: list[NextTokens | None] = []
    for parent, ranks in enumerate(of_pairs.ranks[depth]):
        after = [off[rank] for rank in ranks]
        after_each.append(NextTokens(of_pairs.token_ids[depth][parent], of_pairs.scores[depth][parent], after))
    return after_each


def add_lattice(first: NextTokens, added: NextTokens, off_spine: Sequence[NextTokens] = ()) -> NextTokens:
    """The lattice with the paths of another one, which may be longer than the block.

    Where a token is among the candidates already, the larger score counts; its siblings share what probability is left.
    off_spine: by depth, what may follow an added token that the drafter did not propose (`off_spine_by_depth`);
        may be shorter than the paths.
    """
    return _added(first, added, off_spine, 1)


def _added(following: NextTokens, added: NextTokens, off_spine: Sequence[NextTokens], depth: int) -> NextTokens:
    """`following` with the tokens of `added`, whose depth is `depth`, and all that follows them."""
    afters: list[NextTokens | None] = []
    for token, after in zip(added.token_ids, added.after, strict=True):
        known = after_token(following, token, off_spine, depth)
        afters.append(known if after is None else _added(known, after, off_spine, depth + 1))
    return _with_tokens(following, added, afters)


def best_chain(first: NextTokens) -> tuple[list[int], list[float]]:
    """Tokens and scores of the path that follows the best token everywhere."""
    tokens: list[int] = []
    scores: list[float] = []
    following = first
    while following.token_ids and following.scores[0] > -math.inf:
        tokens.append(following.token_ids[0])
        scores.append(following.scores[0])
        following = following.after[0] or END
    return tokens, scores


def off_spine_by_depth(first: NextTokens) -> list[NextTokens]:
    """By depth, what may follow a node off the spine; depth 0 is the root, which has `first`.

    The last candidate of every position is off the spine wherever there are two, so the path of last candidates
    meets what is wanted at every depth.
    """
    found = [first]
    while found[-1].after:
        after = found[-1].after[-1]
        if after is None:
            break
        found.append(after)
    return found


def after_token(following: NextTokens, token: int, off_spine: Sequence[NextTokens], depth: int) -> NextTokens:
    """What the drafter says may follow `token` at `depth`: END if its draft ends there.

    off_spine: by depth, what stands for that behind a token that is no candidate.
    """
    after = None
    if token in following.token_ids:
        after = following.after[following.token_ids.index(token)]
    if after is None:
        return off_spine[depth] if depth < len(off_spine) else END
    return after


def _with_tokens(following: NextTokens, added: NextTokens, afters: Sequence[NextTokens | None]) -> NextTokens:
    """`following` with the tokens of `added`, their scores raised to those there, and the others lowered to fit."""
    # 1. What was said of them before; the larger score counts.
    ranks = {token: rank for rank, token in enumerate(following.token_ids)}
    old_scores = [following.scores[ranks[token]] if token in ranks else -math.inf for token in added.token_ids]
    scores = [max(score, old) for score, old in zip(added.scores, old_scores, strict=True)]
    room_before = 1.0 - sum(map(math.exp, old_scores))
    room = 1.0 - sum(map(math.exp, scores))
    if room < 0.0:  # two sources that are sure of different tokens
        scores = [score - math.log(1.0 - room) for score in scores]
        room = 0.0
    # 2. Their siblings had the rest of 1 together; scale them so that they fit into what is left now.
    shift = 0.0
    if room < room_before:
        shift = math.log(room / room_before) if room > 0.0 else -math.inf
    entries = []
    for token, score, after in zip(following.token_ids, following.scores, following.after, strict=True):
        if token not in added.token_ids:
            entries.append((score + shift, token, after))
    # 3. All of them, best first.
    entries += zip(scores, added.token_ids, afters, strict=True)
    entries.sort(key=lambda entry: -entry[0])
    return NextTokens(
        [token for _, token, _ in entries], [score for score, _, _ in entries], [after for _, _, after in entries]
    )


def _without_nan(log_probs: NDArray[np.floating]) -> NDArray[np.floating]:
    """Log-probabilities in which nan, as good as impossible, is -inf."""
    return np.where(np.isnan(log_probs), -np.inf, log_probs)
