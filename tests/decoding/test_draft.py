"""A chain that goes to the target unread is the chain that the host would have made of the draft."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree import load, make_prompt_cache, stream_generate
from mlx_ddtree.decoding.draft import UnreadChain, can_stay_unread, finish_draft, start_draft
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.topk import _by_mlx, best_token_ids, finish_top_k
from mlx_ddtree.tree import build_tree

PROMPT = "Write a function that counts vowels."


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.mark.parametrize("block_size", [2, 5, 16])
def test_it_is_the_chain_of_the_best_tokens(pair, block_size):
    state = DecodeState(pair, make_prompt_cache(pair))
    prefill(state, pair.tokenizer.encode(PROMPT), 512)
    started = start_draft(state, block_size, 1)
    candidates = finish_draft(started)
    want = build_tree(state.root, candidates.token_ids, candidates.log_probs, block_size - 1)
    chain = UnreadChain(state.root, started)
    got = chain.read()
    for name in ("token_ids", "parents", "depths"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    np.testing.assert_allclose(got.log_weights, want.log_weights, rtol=1e-5)
    assert chain.shape.is_chain
    assert got.is_chain
    assert len(chain.shape) == block_size


def test_packed_drafts_give_the_same_tokens():
    """On a GPU a draft comes as ids and log-probabilities in one array, on the CPU as logits."""
    logits = mx.random.normal((7, 300), key=mx.random.key(0))
    packed = _by_mlx(logits, 1)
    for started in (logits, packed):
        want, _ = finish_top_k(started, 1)
        np.testing.assert_array_equal(np.array(best_token_ids(started)), want[:, 0])


@pytest.mark.parametrize("sampling", [{}, {"temp": 0.8, "seed": 3}])
def test_reading_it_first_changes_nothing(pair, sampling):
    """Rounds, their trees and the drafter's opinion of them; logits processors force the host to read."""

    def rounds(**how):
        done = stream_generate(pair, PROMPT, 48, method="dflash", block_size=6, **sampling, **how)
        return [(r.tokens, r.round.tree) for r in done]

    unread = rounds()
    read = rounds(logits_processors=[lambda tokens, logits: logits])
    for (tokens, tree), (want_tokens, want_tree) in zip(unread, read, strict=True):
        assert tokens == want_tokens
        assert tree.token_ids.tolist() == want_tree.token_ids.tolist()
        np.testing.assert_allclose(tree.log_weights, want_tree.log_weights, rtol=1e-5)


def test_who_has_to_read(pair):
    greedy = RoundPlan("dflash", 8, 7, Sampler())
    assert can_stay_unread(pair, greedy)
    assert not can_stay_unread(pair, RoundPlan("dflash", 8, 7, Sampler(), [lambda tokens, logits: logits]))
