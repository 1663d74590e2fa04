"""A round's commit leaves the caches as if the emitted tokens had been decoded one by one."""

from functools import cache

import numpy as np
import pytest

from mlx_ddtree import make_prompt_cache, make_sampler
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock, decode_round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree

from .. import families
from .test_lossless import our_tokens, stock_tokens

tiny_pair = cache(families.tiny_pair)
PROMPT = list(range(5, 30))


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "gpt_oss"])
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_a_text_that_ends_inside_an_accepted_path_is_continued(family, kept):
    """The last emitted token is in the caches where the path goes on behind it, and the root where it does not."""
    pair = tiny_pair(family)
    text = stock_tokens(pair, PROMPT, 5)
    prompt_cache = make_prompt_cache(pair)
    state = DecodeState(pair, prompt_cache)
    prefill(state, PROMPT, 8)

    def propose(root):
        return DraftTree.chain(np.array([root, *text[:4]]))

    plan = RoundPlan("dflash", 5, 4, make_sampler())
    done = decode_round(state, plan, propose, lambda tokens: kept, Clock())
    assert done.accepted == 4
    assert done.token_ids == text[:kept]
    assert state.root == (text[4] if kept == 5 else None)
    state.settle()
    assert prompt_cache.token_ids == [*PROMPT, *text[:kept]]
    assert prompt_cache.length == len(PROMPT) + kept
    want = stock_tokens(pair, [*PROMPT, *text[:kept], 8, 3], 10)
    assert our_tokens(pair, [8, 3], 10, prompt_cache=prompt_cache, tree_budget=6, parity="off") == want
