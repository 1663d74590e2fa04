"""What survives a round is never half-changed."""

from functools import cache

import numpy as np
import pytest

from mlx_ddtree import make_prompt_cache, make_sampler
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock, decode_round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree, build_tree

from .. import families

tiny_pair = cache(families.tiny_pair)
PLAN = RoundPlan("ddtree", 4, 6, make_sampler())
PROMPT = list(range(5, 30))


def keep_all(tokens):
    return len(tokens)


def state_after_the_first_token(pair):
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, PROMPT, 8)
    decode_round(state, PLAN, DraftTree.root, keep_all, Clock())
    return state


def drafted_round(state):
    """A round that gives the drafter what it has not seen, and both caches more."""

    def propose(root):
        token_ids, log_probs = draft(state, 4, 4)
        return build_tree(root, token_ids, log_probs, 6)

    return decode_round(state, PLAN, propose, keep_all, Clock())


def standing(state):
    return {
        "drafter": [layer.offset for layer in state.caches.drafter],
        "target": [getattr(layer, "offset", None) for layer in state.caches.target],
        "token_ids": list(state.token_ids),
        "features": [piece.shape for piece in state.features],
        "root": state.root,
        "length": state.length,
        "coverage": state.coverage,
    }


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "gpt_oss"])
def test_all_that_a_block_changed_is_taken_back_when_it_raises(family):
    """Drafter, target, text and features alike; the next round is then the one that would have been."""
    state = state_after_the_first_token(tiny_pair(family))
    before = standing(state)
    with pytest.raises(KeyboardInterrupt), state.all_or_nothing():
        lost = drafted_round(state)
        state.settle()
        raise KeyboardInterrupt
    assert standing(state) == before
    again = drafted_round(state)
    assert again.token_ids == lost.token_ids
    np.testing.assert_array_equal(again.tree.token_ids, lost.tree.token_ids)
