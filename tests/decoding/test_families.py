"""The losslessness battery of whole texts, for every family of targets."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import QuantizedKVCache, RotatingKVCache
from mlx_lm.models.cache import make_prompt_cache as mlx_lm_cache

from mlx_ddtree import make_prompt_cache, make_sampler
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock, decode_round
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.generation.planning import make_plan
from mlx_ddtree.tree import DraftTree

from ..families import FAMILIES, tiny_pair
from .rounding import round_blocks
from .test_lossless import METHODS, PROMPT, VOCAB, fits, joint_distribution, our_tokens, stock_tokens

ONE_OF_A_KIND = ["qwen3_5", "qwen3_next", "gpt_oss", "gemma4, shared keys", "kimi_k25"]
"""Gated delta in both layouts; rings with sinks; rings with shared keys; latent attention."""


@pytest.fixture(params=FAMILIES, scope="module")
def pair(request):
    return tiny_pair(request.param)


@pytest.fixture(scope="module")
def stock(pair):
    """From a prompt and a length to mlx_lm's tokens, each computed once."""
    return cache(lambda prompt, count: stock_tokens(pair, list(prompt), count))


@pytest.mark.parametrize("how", [{"method": "ar"}, {"method": "dflash"}, {"tree_budget": 9}, {}])
def test_greedy_tokens_equal_mlx_lm(pair, stock, how):
    for prompt in (PROMPT, PROMPT * 5):
        assert our_tokens(pair, prompt, 64, **how) == stock(tuple(prompt), 64)


def tree_with(tokens, rng):
    """The next tokens of the text as one branch among wrong ones, in no special place."""
    count = int(rng.integers(0, min(len(tokens), 6)))
    token_ids, parents, right = [tokens[0]], [-1], 0
    for token in tokens[1 : count + 1]:
        for _ in range(int(rng.integers(0, 3))):
            token_ids.append((token + 1 + int(rng.integers(0, 60))) % 64)
            parents.append(int(rng.integers(0, len(token_ids) - 1)))
        token_ids.append(token)
        parents.append(right)
        right = len(token_ids) - 1
    depths = [0]
    for parent in parents[1:]:
        depths.append(depths[parent] + 1)
    return DraftTree(*(np.array(a, np.int32) for a in (token_ids, parents, depths)), np.zeros(len(depths), np.float32))


@pytest.mark.parametrize("seed", [0, 1])
def test_long_accepted_paths_change_nothing(pair, stock, seed):
    """Trees that hold the true continuation: most rounds commit a path of several nodes."""
    rng, prompt = np.random.default_rng(seed), PROMPT * 3
    want = stock(tuple(prompt), 100)
    state = DecodeState(pair, make_prompt_cache(pair))
    plan = make_plan(pair, GenerationOptions(tree_budget=64, block_size=8, parity="off"))
    prefill(state, prompt, 16)
    text, accepted = [], []
    following = [prompt[-1], *want]

    def propose(root):
        assert root == following[len(text)]
        return tree_with(following[len(text) :], rng)

    while len(text) < len(want) - 8:
        done = decode_round(state, plan, propose, len, Clock())
        text += done.token_ids
        accepted.append(done.accepted)
    assert text == want[: len(text)]
    assert np.mean(accepted) > 1


@pytest.mark.parametrize("method", METHODS)
def test_a_prompt_cache_is_continued_as_in_mlx_lm(pair, method):
    ours, stock = make_prompt_cache(pair), mlx_lm_cache(pair.target.model)
    prompt = PROMPT * 2
    answer = our_tokens(pair, prompt, 20, method=method, prompt_cache=ours)
    assert answer == stock_tokens(pair, prompt, 20, prompt_cache=stock)
    if max(getattr(c, "offset", 0) for c in stock) < len(prompt) + 20:
        pair.target.model(mx.array([[answer[-1]]]), cache=stock)
    follow = [8, 3, 30]
    assert our_tokens(pair, follow, 30, method=method, prompt_cache=ours) == stock_tokens(
        pair, follow, 30, prompt_cache=stock
    )


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_four_bit_weights(name):
    pair = tiny_pair(name, bits=4)
    assert our_tokens(pair, PROMPT, 64, tree_budget=9, parity="off") == stock_tokens(pair, PROMPT, 64)


def test_mxfp4_experts():
    """gpt-oss as it is published."""
    pair = tiny_pair("gpt_oss", bits=4, mode="mxfp4")
    assert our_tokens(pair, PROMPT, 64, tree_budget=9, parity="off") == stock_tokens(pair, PROMPT, 64)


@pytest.mark.parametrize(
    "make", [lambda: RotatingKVCache(24, keep=4), lambda: QuantizedKVCache(32, 8)], ids=["ring", "quantised"]
)
def test_other_caches_of_mlx_lm_are_taken(make):
    pair = tiny_pair("qwen3", head_dim=32)
    ours, stock = ([make() for _ in pair.target.layers] for _ in range(2))
    assert our_tokens(pair, PROMPT, 64, tree_budget=9, prompt_cache=ours) == stock_tokens(
        pair, PROMPT, 64, prompt_cache=stock
    )


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_a_seed_gives_the_same_sample_by_every_method(name):
    pair = tiny_pair(name)
    runs = [
        our_tokens(pair, PROMPT, 40, sampler=make_sampler(0.8, seed=3), parity="off", **how)
        for how in ({"method": "ar"}, {"method": "dflash"}, {"tree_budget": 9})
    ]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_5", "gpt_oss"])
def test_distribution_at_temperature_one(name):
    """Over many seeds, the joint distribution of the first three tokens is the target's."""
    pair, counts = tiny_pair(name, vocab=VOCAB), np.zeros(VOCAB**3)
    for seed in range(700):
        draw = make_sampler(1.0, seed=seed)
        a, b, c = our_tokens(pair, [5, 2, 1], 3, block_size=4, tree_budget=6, parity="off", sampler=draw)
        counts[(a * VOCAB + b) * VOCAB + c] += 1
    assert fits(counts, joint_distribution(pair, 1.0))
    assert not fits(counts, joint_distribution(pair, 0.8))


@pytest.mark.usefixtures("thorough_rounding")
@pytest.mark.parametrize("name", ["qwen3_5", pytest.param("gpt_oss", marks=pytest.mark.slow)])
def test_exact_parity_where_rows_round_coarsely(name):
    """States and rings are taken back and remade at near ties, as keys and values are."""
    prompts = [[5, 9 + 3 * i, 23, 41 - i, 12, 7 + i] for i in range(6)]
    pair = tiny_pair(name)
    round_blocks(pair.target, 6)
    want = [our_tokens(pair, p, 48, method="ar") for p in prompts]
    assert [our_tokens(pair, p, 48, tree_budget=12) for p in prompts] == want
    assert [our_tokens(pair, p, 48) for p in prompts] == want
    assert [our_tokens(pair, p, 48, tree_budget=12, parity="off") for p in prompts] != want
