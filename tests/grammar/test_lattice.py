"""A draft under a grammar: nothing forbidden enters the tree, what must follow is certain."""

import math

import numpy as np
import pytest

from mlx_ddtree import Grammar
from mlx_ddtree.budget.certainty import certain_tokens, doubtful, likely_behind
from mlx_ddtree.generation.grammars import open_walk
from mlx_ddtree.grammar.lattice import LONGEST, follow_grammar
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.lattice import END, best_chain, candidate_lattice

from ..helpers import small_target
from .pairs import EOS, VOCAB, byte_tokenizer


@pytest.fixture(scope="module")
def pair():
    return Pair(small_target(vocab=VOCAB), None, byte_tokenizer())


def ids(pair, letters):
    return [pair.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters]


def block(pair, *rows):
    """Candidates by position, as (letter, probability) each."""
    tokens = np.array([ids(pair, [letter for letter, _ in row]) for row in rows])
    return candidate_lattice(tokens, np.log([[chance for _, chance in row] for row in rows]))


def walk_of(pair, pattern):
    return open_walk(pair, Grammar.regex(pattern), [])


def texts(pair, tree):
    return {pair.tokenizer.decode(tree.token_ids[tree.path_to(node)[1:]].tolist()) for node in range(1, len(tree))}


def test_forbidden_tokens_are_left_out_on_every_path(pair):
    """Whether a token is allowed depends on those before it."""
    row = [("x", 0.5), ("y", 0.3), ("z", 0.1)]
    first = follow_grammar(walk_of(pair, "x(y|z).|yx."), block(pair, row, row))
    tree = grow_tree(0, first, 20)
    assert texts(pair, tree) == {"x", "y", "xy", "xz", "yx"}


def test_allowed_tokens_share_the_probability_of_forbidden_ones(pair):
    first = follow_grammar(walk_of(pair, "[yzw]"), block(pair, [("x", 0.5), ("y", 0.3), ("z", 0.1)]))
    assert first.token_ids == ids(pair, "yz")
    assert np.exp(first.scores) == pytest.approx([0.6, 0.2])
    alone = follow_grammar(walk_of(pair, "[yw]"), block(pair, [("x", 0.9), ("y", 0.1)]))
    assert alone.scores[0] < 0.0, "all that is left of the draft, but not certain"


def test_what_must_follow_is_certain_and_the_draft_goes_on_behind_it(pair):
    draft = block(pair, [("x", 0.9), ("y", 0.1)], [("x", 0.9), ("y", 0.1)], [("z", 0.8), ("w", 0.2)])
    first = follow_grammar(walk_of(pair, "QR[xyz].."), draft)
    tokens, scores = best_chain(first)
    assert tokens == ids(pair, "QRz") and scores[:2] == [0.0, 0.0] and scores[2] < 0.0
    assert certain_tokens(first) == 2


def test_nothing_drafted_is_the_chain_of_what_must_follow(pair):
    tree = grow_tree(0, follow_grammar(walk_of(pair, "QRS[xy]"), END), 10)
    assert texts(pair, tree) == {"Q", "QR", "QRS"} and tree.is_chain
    ended = grow_tree(0, follow_grammar(walk_of(pair, "Q"), END), 10)
    assert ended.token_ids.tolist()[1:] == [*ids(pair, "Q"), EOS], "nothing stands behind an end"
    assert follow_grammar(walk_of(pair, "[xy]"), END) is END


def test_a_path_does_not_grow_without_end(pair):
    assert len(best_chain(follow_grammar(walk_of(pair, "Q{1000}"), END))[0]) == LONGEST


def test_only_as_much_is_unfolded_as_the_tree_grows(pair):
    row = [("x", 0.5), ("y", 0.4)]
    walk = walk_of(pair, "[xy]*")
    grow_tree(0, follow_grammar(walk, block(pair, *[row] * 12)), 6)
    assert len(walk._places) <= 7


def test_what_is_likely_behind_the_best_token(pair):
    row = [("x", 0.5), ("y", 0.4)]
    first = block(pair, row, row)
    assert likely_behind(first, 0.2).token_ids == ids(pair, "xy")
    assert likely_behind(first, 0.3) is END and likely_behind(END, 0.1) is END


def test_trust_does_not_count_what_was_certain():
    tree = DraftTree.chain(np.array([0, 1, 2, 3]), np.array([0.0, math.log(0.5), math.log(0.25)]))
    assert doubtful(tree, [1, 2, 9]) == (pytest.approx(0.75), 1)
    assert doubtful(tree, [1]) == (0.0, 0)
    assert doubtful(tree, [5]) == (0.0, 0)
