"""A lattice unfolds to the prefixes that were meant, and a chain is added without breaking what its parts promise."""

import math
from itertools import product

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.lattice import (
    END,
    NextTokens,
    add_lattice,
    best_chain,
    block_lattice,
    off_spine_by_depth,
    pairwise_lattice,
)

from .trees import ROOT, SCORES, marginals, prefixes_of

CHANCES = st.integers(1, 199).map(lambda n: n / 200)


@st.composite
def two_faced(draw):
    """token_ids (L, K), scores on and off the spine (L, K)."""
    token_ids, spine = draw(marginals())
    count = spine.size
    off_spine = np.array(draw(st.lists(SCORES, min_size=count, max_size=count)), np.float32).reshape(spine.shape)
    return token_ids, spine, -np.sort(-off_spine, axis=1)


@st.composite
def promises(draw, max_length=3, max_k=4):
    """token_ids (L, K) below 8, scores on and off the spine (L, K): logs of probabilities whose sum is at most 1."""
    length, k = draw(st.integers(0, max_length)), draw(st.integers(1, max_k))
    rows = st.lists(st.integers(1, 20), min_size=k + 1, max_size=k + 1)  # the last is what no candidate gets
    tokens = np.array([draw(st.permutations(range(8)))[:k] for _ in range(length)]).reshape(length, k)
    shares = np.array([[draw(rows) for _ in range(length)] for _ in range(2)], float).reshape(2, length, k + 1)
    probabilities = -np.sort(-shares[..., :-1] / shares.sum(-1, keepdims=True), axis=-1)
    return tokens, *np.log(probabilities)


def one_path(chain):
    """A lattice of one path of (token, score)."""
    following = None
    for token, score in reversed(chain):
        following = NextTokens([token], [score], [following])
    return following or NextTokens()


CHAINS = st.lists(st.tuples(st.integers(0, 9), CHANCES.map(math.log)), max_size=6)


@given(two_faced(), st.integers(0, 90))
def test_other_scores_count_once_a_path_has_left_the_spine(candidates, budget):
    """Equal to brute force over all rank sequences, the spine being rank 0 all the way."""
    token_ids, *scores = candidates
    everything = {}
    for depth in range(1, len(token_ids) + 1):
        for ranks in product(range(token_ids.shape[1]), repeat=depth):
            weight = sum(float(scores[any(ranks[:d])][d, r]) for d, r in enumerate(ranks))
            everything[tuple(token_ids[range(depth), ranks].tolist())] = weight
    tree = grow_tree(ROOT, block_lattice(*candidates), budget)
    nodes = prefixes_of(tree)
    assert len(nodes) == len(tree) - 1
    assert list(nodes.values()) == sorted((w for w in everything.values() if w > -math.inf), reverse=True)[:budget]
    assert all(everything[prefix] == weight for prefix, weight in nodes.items())


@given(two_faced(), st.data())
def test_nan_is_as_good_as_impossible(candidates, data):
    """By drafters of either kind: no node, and nothing under it."""
    token_ids, spine, off_spine = candidates
    holes = np.array(data.draw(st.lists(st.booleans(), min_size=spine.size, max_size=spine.size)), bool)
    holes = holes.reshape(spine.shape)

    def trees(hole):
        broken = [np.where(holes, hole, scores).astype(np.float32) for scores in (spine, off_spine)]
        pairs = np.repeat(broken[0][:, None], spine.shape[1], axis=1)
        rows = block_lattice(token_ids, *broken), pairwise_lattice(token_ids, pairs)
        return [prefixes_of(grow_tree(ROOT, first, 50)) for first in rows]

    assert trees(np.nan) == trees(-np.inf)


@given(promises(), CHAINS)
def test_a_lattice_with_a_chain_still_holds_its_promises(candidates, chain):
    """Distinct tokens, best first, and no more than one token in all: grow_tree and Phi rely on it."""
    first = block_lattice(*candidates)
    todo, seen = [add_lattice(first, one_path(chain), off_spine_by_depth(first))], set()
    while todo:
        row = todo.pop()
        if row is None or id(row) in seen:
            continue
        seen.add(id(row))
        todo += row.after
        assert len(set(row.token_ids)) == len(row.token_ids) == len(row.scores) == len(row.after)
        assert row.scores == sorted(row.scores, reverse=True)
        assert sum(map(math.exp, row.scores)) <= 1 + 1e-9


@given(promises(), CHAINS)
@example((np.array([[0, 1], [0, 1]]), *np.log(np.full((2, 2, 2), 1 / 3))), [(0, math.log(0.005))])
def test_the_chain_is_a_path_with_its_own_scores(candidates, chain):
    """Also where the drafter lacks the token or the block has ended; a larger score of the drafter stays."""
    old = block_lattice(*candidates)
    row = add_lattice(old, one_path(chain))
    for token, score in chain:
        known = old.token_ids.index(token) if token in old.token_ids else None
        place = row.token_ids.index(token)
        assert row.scores[place] == max(score, -math.inf if known is None else old.scores[known])
        row, old = row.after[place], END if known is None else old.after[known] or END
    assert (row or END) == old  # and below it all is as it was


@given(promises().filter(lambda c: len(c[0])), st.integers(0, 9), CHANCES)
def test_siblings_share_what_the_chain_leaves(candidates, token, chance):
    """What is added to one token is taken from the others in proportion; a lower score takes nothing."""
    first = block_lattice(*candidates)
    before = dict(zip(first.token_ids, np.exp(first.scores), strict=True))
    row = add_lattice(first, one_path([(token, math.log(chance))]))
    after = dict(zip(row.token_ids, np.exp(row.scores), strict=True))
    old = before.get(token, 0.0)
    assert after.keys() == before.keys() | {token}
    for sibling in before.keys() - {token}:
        assert math.isclose(after[sibling], before[sibling] * min(1.0, (1 - chance) / (1 - old)), rel_tol=1e-6)


@given(promises(), promises())
def test_a_lattice_with_another_still_holds_its_promises(candidates, others):
    """Every path of both is in it, by its larger scores where there is room for both."""
    first, added = block_lattice(*candidates), block_lattice(*others)
    merged = add_lattice(first, added, off_spine_by_depth(first))
    todo = [(merged, added)]
    while todo:
        row, of_added = todo.pop()
        assert row.scores == sorted(row.scores, reverse=True)
        assert len(set(row.token_ids)) == len(row.token_ids)
        assert sum(map(math.exp, row.scores)) <= 1 + 1e-9
        for token, after in zip(of_added.token_ids, of_added.after, strict=True):
            followed = row.after[row.token_ids.index(token)]
            if after is not None:
                todo.append((followed, after))
    assert set(merged.token_ids) == set(first.token_ids) | set(added.token_ids)


def test_two_sources_that_are_sure_of_different_tokens_share_the_place():
    first = NextTokens([1, 2], np.log([0.9, 0.05]).tolist(), [None, None])
    added = NextTokens([3, 1], np.log([0.6, 0.3]).tolist(), [None, None])
    merged = add_lattice(first, added)
    assert merged.token_ids == [1, 3, 2]
    np.testing.assert_allclose(np.exp(merged.scores), [0.6, 0.4, 0.0], atol=1e-9)


def test_an_unknown_token_is_followed_by_the_off_spine_candidates():
    """The drafter's next position is still a guess after a token that it did not propose."""
    first = block_lattice(
        np.array([[1, 2], [3, 4]]), np.log([[0.5, 0.2], [0.5, 0.2]]), np.log([[0.3, 0.1], [0.3, 0.1]])
    )
    nodes = prefixes_of(
        grow_tree(
            ROOT, add_lattice(first, one_path([(7, math.log(0.9)), (8, math.log(0.6))]), off_spine_by_depth(first)), 50
        )
    )
    assert {p for p in nodes if p[0] == 7} == {(7,), (7, 8), (7, 3), (7, 4)}
    np.testing.assert_allclose(np.exp(nodes[7, 3]), 0.9 * 0.3 * 0.4, rtol=1e-6)


def test_off_spine_by_depth_are_by_depth():
    spine = np.log([[0.5, 0.2], [0.6, 0.2], [0.7, 0.2]])
    first = block_lattice(np.array([[1, 2], [3, 4], [5, 6]]), spine, spine - 1)
    rows = off_spine_by_depth(first)
    assert rows[0] is first
    assert [row.scores for row in rows[1:]] == (spine - 1)[1:].tolist()


def test_a_chain_alone_is_a_lattice():
    """A copy needs no drafter."""
    tree = grow_tree(ROOT, add_lattice(NextTokens(), one_path([(4, -0.1), (4, -0.2), (5, -0.3)])), 50)
    assert tree.is_chain
    assert tree.token_ids.tolist() == [ROOT, 4, 4, 5]


@given(marginals())
def test_the_best_chain_takes_every_first_candidate(candidates):
    token_ids, log_probs = candidates
    tokens, scores = best_chain(block_lattice(token_ids, log_probs))
    possible = int(np.cumprod(log_probs[:, 0] > -np.inf).sum())
    assert tokens == token_ids[:possible, 0].tolist()
    np.testing.assert_allclose(scores, log_probs[:possible, 0])


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_pairs_count_other_scores_once_a_path_has_left_the_best(length, k, seed, budget):
    """Equal to brute force over all rank sequences; the spine follows the best child of the best child."""
    rng = np.random.default_rng(seed)
    token_ids = np.array([rng.permutation(k + 2)[:k] for _ in range(length)])
    on, off = -rng.permutation(2 * length * k * k).reshape(2, length, k, k) / 7 - 0.1
    spine = []
    for d in range(length):
        spine.append(int(on[d, spine[-1] if spine else 0].argmax()))
    everything = {}
    for depth in range(1, length + 1):
        for path in product(range(k), repeat=depth):
            weight, parent = 0.0, 0
            for d, c in enumerate(path):
                weight += (on if list(path[:d]) == spine[:d] else off)[d, parent, c]
                parent = c
            everything[tuple(token_ids[range(depth), path].tolist())] = weight
    tree = grow_tree(ROOT, pairwise_lattice(token_ids, on, off), budget)
    nodes = prefixes_of(tree)
    np.testing.assert_allclose(list(nodes.values()), sorted(everything.values(), reverse=True)[:budget], rtol=1e-5)
    for prefix, weight in nodes.items():
        np.testing.assert_allclose(everything[prefix], weight, rtol=1e-5)
