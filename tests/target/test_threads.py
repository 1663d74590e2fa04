"""A pair that was loaded in one thread answers in any other: nothing that its modules hold is left lazy."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree import generate
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import PlainTarget, TreeTarget, make_target

from ..every_model import mute_model
from ..families import FAMILIES, YARN, tiny_model, tiny_target
from ..helpers import small_drafter
from ..training.tiny import make_tokenizer
from .test_families import CONTEXTS, TREES, prefilled, verify

LONGROPE = {
    "model_type": "phi3",
    "original_max_position_embeddings": 64,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 64,
    },
}


def in_another_thread(function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_first_used_in_another_thread(name):
    """Prompt, plain step and a tree; and then in the thread that made the model."""

    def first_use():
        cache = prefilled(target, CONTEXTS["short"])
        return verify(target, TREES["bushy"], cache, len(CONTEXTS["short"]))[0]

    target = tiny_target(name)
    there = in_another_thread(first_use)
    np.testing.assert_array_equal(there, first_use())


@pytest.mark.parametrize(("model", "kind"), [(lambda: tiny_model(LONGROPE), TreeTarget), (mute_model, PlainTarget)])
def test_unlisted_models_are_first_used_in_another_thread(model, kind):
    target = make_target(model())
    assert type(target) is kind

    def logits():
        hidden, _ = target.forward(mx.array([[3, 4]]), target.make_cache())
        return evaluated(target.unembed(hidden))[0]

    assert in_another_thread(logits).shape == (1, 2, 64)


def evaluated(*arrays):
    mx.eval(arrays)
    return arrays


def scaled_pair():
    """Both models have tables of rotary embeddings."""
    target = tiny_target("qwen3, yarn")
    pair = Pair(target, small_drafter(target, rope_scaling=YARN), make_tokenizer())
    pair.tokenizer.eos_token_ids.clear()
    return pair


def test_whole_answers_in_a_pool_of_threads():
    pair, prompt = scaled_pair(), [5, 9, 23, 41]

    def answer():
        return generate(pair, prompt, 12, tree_budget=6)

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
        texts = [pool.submit(answer).result() for pool in (one, another, one)]
    assert texts == [answer()] * 3


def test_whole_answers_of_an_event_loop():
    """Each call of `asyncio.to_thread` may run in a thread of its own."""
    pair, prompt = scaled_pair(), [5, 9, 23, 41]

    async def answers():
        return [await asyncio.to_thread(generate, pair, prompt, 12, method=method) for method in ("ddtree", "ar")]

    texts = asyncio.run(answers())
    assert texts == [generate(pair, prompt, 12, method="ar")] * 2
