"""Caches kept small as mlx-lm keeps them: by flag, with the tokens that mlx_lm gives under the same options."""

import pytest
from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache

from mlx_ddtree import GenerationOptions, Session, make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.errors import OptionError, UnsupportedModelError

from ..families import tiny_pair
from ..helpers import small_pair
from .test_lossless import PROMPT, our_tokens, stock_tokens, without_end

HOW = [{"method": "ar"}, {"method": "dflash"}, {"tree_budget": 6}, {"tree_budget": 40}, {}]
LONG = PROMPT * 9


@pytest.fixture(scope="module")
def pair():
    return without_end(tiny_pair("qwen3", head_dim=32))


@pytest.mark.parametrize("start", [0, 20, 54, 75, 5000])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_quantised_caches_give_mlx_lms_tokens(pair, how, start):
    """Also where the caches are quantised inside the prompt, with its last token, or in the middle of the answer."""
    options = {"kv_bits": 4, "kv_group_size": 32, "quantized_kv_start": start, "prefill_step_size": 16}
    assert our_tokens(pair, LONG, 60, **how, **options) == stock_tokens(pair, LONG, 60, **options)


def test_quantising_has_an_effect(pair):
    options = {"kv_bits": 2, "kv_group_size": 32, "quantized_kv_start": 0}
    assert our_tokens(pair, LONG, 60, **options) != our_tokens(pair, LONG, 60)


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 8])
def test_every_number_of_bits_works(pair, bits):
    options = {"kv_bits": bits, "kv_group_size": 32, "quantized_kv_start": 60}
    plain = our_tokens(pair, LONG, 30, method="ar", **options)
    assert our_tokens(pair, LONG, 30, tree_budget=6, **options) == plain


@pytest.mark.parametrize("name", ["qwen3_5", "llama, llama3 rope"])
def test_other_families(name):
    """Hybrids quantise what holds keys, and leave the states of their other layers alone."""
    pair = tiny_pair(name, head_dim=32)
    options = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 70}
    want = stock_tokens(pair, LONG, 60, **options)
    for how in ({"method": "dflash"}, {"tree_budget": 6}):
        assert our_tokens(pair, LONG, 60, **how, **options) == want


@pytest.mark.parametrize("size", [16, 400])
@pytest.mark.parametrize("how", HOW, ids=str)
def test_limited_caches_give_mlx_lms_tokens(pair, how, size):
    want = stock_tokens(pair, LONG, 60, prompt_cache=[RotatingKVCache(size, keep=4) for _ in pair.target.layers])
    assert our_tokens(pair, LONG, 60, max_kv_size=size, **how) == want


def test_a_limited_cache_stays_small(pair):
    cache = make_prompt_cache(pair)
    our_tokens(pair, LONG, 100, max_kv_size=32, prompt_cache=cache)
    assert all(layer.keys.shape[2] <= 32 + 64 for layer in cache.target)
    assert all(isinstance(layer, RotatingKVCache) and layer.max_size == 32 for layer in cache.target)


def test_a_given_cache_is_quantised_in_its_place(pair):
    """mlx-lm's own list too: whoever gave it goes on with what it has become."""
    for cache in (make_prompt_cache(pair), pair.target.make_cache()):
        our_tokens(pair, LONG, 10, kv_bits=8, kv_group_size=32, quantized_kv_start=0, prompt_cache=cache)
        assert all(isinstance(layer, QuantizedKVCache) for layer in cache[: pair.target.num_caches])
        our_tokens(pair, [8, 3], 10, kv_bits=8, kv_group_size=32, quantized_kv_start=0, prompt_cache=cache)


@pytest.mark.parametrize("options", [{"kv_bits": 8, "quantized_kv_start": 30}, {"max_kv_size": 48}], ids=str)
def test_a_session_goes_on_with_small_caches(pair, options):
    session = Session(pair)
    options = options | {"kv_group_size": 32}
    text = list(LONG)
    for question in ([8, 3, 30], [7, 7, 12], [5]):
        text += question
        answer = [t for r in session.stream(text, 12, **options) for t in r.tokens]
        assert len(answer) == 12
        text += answer
    assert session.reused > 0
    assert not any(type(layer) is KVCache for layer in session.cache.target)


def test_a_seed_gives_one_text(pair):
    options = {"kv_bits": 4, "kv_group_size": 32, "quantized_kv_start": 60, "sampler": make_sampler(0.8, seed=3)}
    plain = our_tokens(pair, LONG, 40, method="ar", **options)
    assert our_tokens(pair, LONG, 40, tree_budget=12, **options) == plain


def test_an_interrupted_answer_leaves_a_usable_cache(pair):
    cache = make_prompt_cache(pair)
    options = {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 60}
    stream = stream_generate(pair, LONG, 60, tree_budget=6, prompt_cache=cache, **options)
    seen = []
    for _ in range(6):
        seen += next(stream).tokens
    stream.close()
    assert {layer.offset for layer in cache} == {len(LONG) + len(seen)} == {len(cache.token_ids)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_bits": 4, "max_kv_size": 32}, "not both"),
        ({"kv_bits": 4, "kv_keep_ratio": 0.5}, "one or the other"),
        ({"max_kv_size": 32, "kv_budget": 64}, "one or the other"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(OptionError, match=words):
        GenerationOptions(**options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gpt_oss", {"kv_bits": 4}, "limited size"),
        ("gpt_oss", {"max_kv_size": 32}, "RotatingKVCache"),
        ("qwen3_5", {"max_kv_size": 32}, "ArraysCache"),
        ("deepseek_v3", {"kv_bits": 4}, "cannot read quantised keys"),
    ],
)
def test_models_whose_caches_are_others_are_refused_at_the_call(name, options, words):
    with pytest.raises(UnsupportedModelError, match=words):
        stream_generate(tiny_pair(name), LONG, 4, **options)


def test_groups_that_do_not_divide_the_heads_are_refused():
    with pytest.raises(OptionError, match="kv_group_size"):
        our_tokens(small_pair(), LONG, 4, kv_bits=4, quantized_kv_start=0)


def test_a_limit_for_caches_that_hold_more_already_is_refused(pair):
    cache = make_prompt_cache(pair)
    our_tokens(pair, LONG, 4, prompt_cache=cache)
    with pytest.raises(OptionError, match="begin with new ones"):
        stream_generate(pair, [8, 3], 4, max_kv_size=32, prompt_cache=cache)


def test_quantised_caches_take_less_memory(pair):
    sizes = []
    for options in ({}, {"kv_bits": 2, "kv_group_size": 32, "quantized_kv_start": 0}):
        cache = make_prompt_cache(pair)
        our_tokens(pair, LONG, 4, method="ar", prompt_cache=cache, **options)
        sizes.append(sum(layer.nbytes for layer in cache.target))
    assert sizes[1] < sizes[0] / 4
