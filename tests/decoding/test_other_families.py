"""Families that nobody listed: whole texts of every method equal mlx_lm's, also with continued caches and above T = 0."""

import pytest

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import make_target

from ..every_model import every_model
from ..helpers import any_profile, small_drafter
from ..training.tiny import make_tokenizer
from .test_lossless import PROMPT, our_tokens, stock_tokens

NAMED = ["gemma3_text", "qwen2", "smollm3", "phi3", "mistral3"]
"""Public targets of today."""
RECURRENT = ["lfm2", "falcon_h1", "nemotron_h", "rwkv7", "mamba2", "kimi_linear", "recurrent_gemma"]
"""Short convolutions, hybrids with lists of caches, time mixing, state-space duality, gated recurrences."""
SCALED = ["granite", "cohere", "gemma2"]
PLACED = ["gpt2", "nanochat", "afm7"]
"""Learned positions, rotations by a function of the file's own, positions counted from the keys."""
BY_PATHS = ["llama4", "deepseek_v41", "baichuan_m1", "minimax_m3_vl"]
"""Chunks, compressed groups, windows of keys, sparse blocks: every path runs through the whole model."""

STREAMS = ["deepseek_v41"]
"""Carries several streams between its layers, which no drafter reads: what the text repeats is copied."""


@pytest.fixture(params=[*NAMED, *RECURRENT, *SCALED, *PLACED, *BY_PATHS], scope="module")
def pair(request):
    target = make_target(every_model(request.param))
    drafter = None if request.param in STREAMS else small_drafter(target)
    pair = Pair(target, drafter, make_tokenizer())
    pair.tokenizer.eos_token_ids.clear()
    pair.profile = any_profile(drafter is not None)
    return pair


@pytest.mark.parametrize("how", [{"method": "dflash"}, {"tree_budget": 9}])
def test_greedy_tokens_equal_mlx_lm(pair, how):
    assert our_tokens(pair, PROMPT * 3, 40, parity="off", **how) == stock_tokens(pair, PROMPT * 3, 40)


def test_a_seed_gives_one_text_by_every_method(pair):
    texts = [
        our_tokens(pair, PROMPT, 24, parity="off", temp=0.8, seed=3, **how)
        for how in ({"method": "ar"}, {"tree_budget": 7})
    ]
    assert texts[0] == texts[1]


def test_layers_that_give_streams_take_no_drafter():
    target = make_target(every_model("deepseek_v41"))
    pair = Pair(target, small_drafter(target), make_tokenizer())
    pair.profile = any_profile()
    with pytest.raises(UnsupportedModelError, match="several streams"):
        our_tokens(pair, PROMPT, 4)
