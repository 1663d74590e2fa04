"""The context limit is the one that the model's rotary embeddings were made for, scaled or not."""

from types import SimpleNamespace

import pytest

from mlx_ddtree import stream_generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import make_target
from mlx_ddtree.target.context_limit import context_limit

from ..decoding.test_lossless import stock_tokens
from ..every_model import every_model
from ..families import tiny_model
from ..helpers import small_drafter, small_target
from ..training.tiny import make_tokenizer

CONFIGS = {
    "qwen3 8B with YaRN as its model card says": (40960, {"factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
    "gpt_oss, multiplied already": (131072, {"factor": 32.0, "original_max_position_embeddings": 4096}, 131072),
    "llama 3.1": (131072, {"factor": 8.0, "original_max_position_embeddings": 8192}, 131072),
    "linear, without the original number": (4096, {"type": "linear", "factor": 4.0}, 16384),
    "no scaling": (512, None, 512),
    "default": (512, {"rope_type": "default", "rope_theta": 1e6}, 512),
    "by kind of layer": (512, {"full_attention": {"factor": 8.0}, "sliding_attention": {}}, 512),
    "not a number": (512, {"factor": "4", "original_max_position_embeddings": True}, 512),
    "infinite": (512, {"factor": float("inf")}, 512),
    "not an object": (512, [4.0], 512),
    "no positions stated": (None, {"factor": 4.0}, None),
}  # fmt: skip


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_larger_of_both_readings_counts(name, key):
    stated, scaling, want = CONFIGS[name]
    assert context_limit(SimpleNamespace(max_position_embeddings=stated, **{key: scaling})) == want


def stretched():
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}


def test_a_prompt_behind_the_original_positions_is_answered():
    """As stock mlx_lm answers it."""
    target = small_target(rope_scaling=stretched())
    assert target.max_context == 2048
    pair = Pair(target, small_drafter(target), make_tokenizer())
    pair.tokenizer.eos_token_ids.clear()
    prompt = [5, 9, 23, 41] * 150
    said = [token for r in stream_generate(pair, prompt, 6, tree_budget=4) for token in r.tokens]
    assert said == stock_tokens(pair, prompt, 6)


def test_models_without_an_adapter_have_the_limit_too():
    assert make_target(tiny_model({"model_type": "olmo2", "rope_scaling": stretched()})).max_context == 2048


@pytest.mark.parametrize("name", ["gpt2", "gpt_bigcode", "gptj", "kimi_linear"])
def test_other_names_of_the_limit_are_read(name):
    """Behind a table of learned positions there is nothing to read."""
    assert make_target(every_model(name)).max_context == 512
