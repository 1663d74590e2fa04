"""A DFlash 2 drafter changes how texts are drafted and nothing of what is emitted."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree import make_sampler, stream_generate
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.draft import draft, finish_draft, start_draft
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.pair import Pair
from mlx_ddtree.tree.build import build_tree

from ..drafter.test_dflash2 import BLOCK, reference, small_drafter2
from ..helpers import small_target
from ..training.tiny import MASK, make_tokenizer
from .test_adaptive import constantly
from .test_lossless import PROMPT, our_tokens, stock_tokens, without_end


def pair2(**config):
    target = small_target()
    return without_end(Pair(target, small_drafter2(target, **config), make_tokenizer()))


@pytest.mark.parametrize("how", [
    {"method": "dflash"}, {"method": "dflash", "block_size": 5}, {"tree_budget": 1}, {"tree_budget": 7},
    {"tree_budget": 40, "block_size": 5}, {"tree_budget": 200}, {"tree_budget": "auto"}, {"method": "dflash", "tree_budget": "auto"},
])  # fmt: skip
def test_greedy_tokens_equal_mlx_lm(how):
    pair = pair2()
    for prompt in (PROMPT, [11]):
        assert our_tokens(pair, prompt, 48, **how) == stock_tokens(pair, prompt, 48)


@pytest.mark.parametrize("machine", [{"verify": 0.1}, {"draft": 5.0}])
@pytest.mark.parametrize("method", ["ddtree", "dflash"])
def test_tokens_are_plain_decodings_on_every_machine(machine, method):
    """Large trees, copies, pauses: whatever the planner chooses of pairs."""
    pair = constantly(pair2(), **machine)
    assert our_tokens(pair, PROMPT, 90, method=method) == stock_tokens(pair, PROMPT, 90)


FILTERS = [pytest.param(options, marks=pytest.mark.slow) for options in ({"top_p": 0.9}, {"min_p": 0.05})]


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, *FILTERS])
def test_a_seed_gives_the_same_sample_by_every_method_and_budget(options):
    pair = pair2()
    runs = [
        our_tokens(pair, PROMPT, 40, sampler=make_sampler(0.8, seed=3, **options), **how)
        for how in ({"method": "ar"}, {"method": "dflash"}, {"tree_budget": 30}, {"tree_budget": "auto"})
    ]
    assert all(run == runs[0] for run in runs)


def started_state(pair):
    """After the prompt: the last token is the root, nothing drafted yet."""
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, PROMPT, 64)
    return state


def test_candidates_are_the_definition():
    """Logits and edges of the plain numpy reference, normalised over the whole vocabulary."""
    pair = pair2()
    token_ids, log_probs = draft(started_state(pair), BLOCK, 16)
    assert token_ids.shape == (BLOCK - 1, 5) and log_probs.shape == (BLOCK - 1, 5, 5)
    target, expected = pair.target, reference(pair.drafter)
    _, features = target.forward(mx.array([PROMPT[:-1]]), target.make_cache())
    block = target.embed(mx.array([[PROMPT[-1]] + [MASK] * (BLOCK - 1)]))
    hidden = expected(np.array(block[0], np.float64), np.array(features[0], np.float64))[1:]
    logits = np.array(target.unembed(mx.array(hidden.astype(np.float32))), np.float64)
    for d, r in np.ndindex(log_probs.shape[:2]):
        parent, changed = token_ids[d - 1, r] if d else PROMPT[-1], logits[d].copy()
        for child in token_ids[d]:
            changed[child] += expected.edge(parent, child, hidden[d])
        p = np.exp(changed - changed.max())
        np.testing.assert_allclose(np.exp(log_probs[d, r]), (p / p.sum())[token_ids[d]], atol=2e-3)


def test_a_linear_draft_is_the_greedy_path():
    """The same path as the tree's own best chain."""
    pair = pair2()
    tree = finish_draft(start_draft(started_state(pair), BLOCK, 16))
    line = finish_draft(start_draft(started_state(pair), BLOCK, 1))
    assert line.token_ids.shape == line.log_probs.shape == (BLOCK - 1, 1)
    assert build_tree(0, *line, 99).token_ids.tolist()[1:] == tree.greedy().token_ids[:, 0].tolist()


def test_responses_say_what_was_drafted():
    """A chain of up to the block for 'dflash', a tree of the budget else."""
    pair = pair2()
    for response in stream_generate(pair, PROMPT, 24, method="dflash", tree_budget=BLOCK - 1):
        assert response.nodes == response.depth
    sizes = [r.nodes for r in stream_generate(pair, PROMPT, 24, tree_budget=20)]
    assert max(sizes) == 20
