"""A window's cache keeps what the window can need, and no more; drafts are those of a cache that keeps everything."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache

from mlx_ddtree import Session, load, make_sampler, stream_branches, stream_generate
from mlx_ddtree.drafter.window import BACK, WindowCache
from mlx_ddtree.errors import OptionError
from mlx_ddtree.pair import Pair

from ..helpers import small_drafter, small_target
from ..training.tiny import make_tokenizer

TARGET = small_target()


def narrow(window, back, step=4):
    """A cache that gives rows up early."""
    cache = WindowCache(window)
    cache.keep, cache.step = window - 1 + back, step
    return cache


@settings(max_examples=150)
@given(data=st.data(), window=st.integers(1, 9), back=st.integers(0, 9))
def test_any_updates_and_rewinds(data, window, back):
    """Rows carry the number of the update that brought them and their position."""
    cache, rows = narrow(window, back), []
    for number in range(data.draw(st.integers(1, 12))):
        if data.draw(st.booleans()):
            cache.offset = data.draw(st.integers(0, len(rows)))
            rows = rows[: cache.offset]
        start, count = len(rows), data.draw(st.integers(0, 7))
        rows += [(number, start + i) for i in range(count)]
        new = mx.array(np.array(rows[start:], np.float32).reshape(1, 1, -1, 2))
        keys, values = cache.update_and_fetch(new, new + 1)
        assert cache.offset == len(rows)
        got = [tuple(row) for row in np.array(keys[0, 0]).astype(int)]
        assert got == rows[cache.first :]
        np.testing.assert_array_equal(np.array(values), np.array(keys) + 1)


@settings(max_examples=60)
@given(window=st.integers(1, 12), back=st.integers(0, 12), counts=st.lists(st.integers(0, 15), min_size=1, max_size=12),
       further=st.integers(0, 12))  # fmt: skip
def test_a_window_survives_the_last_update_and_a_rewind_behind_it(window, back, counts, further):
    """As a failed round takes back what it added, and a session an answer."""
    cache, start = narrow(window, back), 0
    for count in counts:
        start = cache.offset
        cache.update_and_fetch(*[mx.zeros((1, 1, count, 2))] * 2)
    cache.offset = max(0, start - min(further, back))
    assert cache.stored >= min(cache.offset, window - 1)


@pytest.mark.parametrize("window", [1, 2, 300])
def test_an_answer_taken_back_leaves_a_whole_window(window):
    """BACK tokens behind what the last update had found: the window's other tokens are all there, and no more is kept."""
    cache = WindowCache(window)
    for _ in range(2):
        start = cache.offset
        cache.update_and_fetch(*[mx.zeros((1, 1, 4096, 2))] * 2)
    cache.offset = start - BACK
    assert cache.stored == window - 1


def test_memory_is_bounded():
    """By window, way back and the largest update, not by the context."""
    cache, most = WindowCache(64), 0
    for _ in range(40):
        cache.update_and_fetch(*[mx.zeros((1, 1, 512, 4))] * 2)
        most = max(most, cache.nbytes // (2 * 4 * 4))
    assert cache.offset == 40 * 512
    assert most <= 64 + BACK + 2 * 512 + 2 * cache.step


@pytest.mark.parametrize("causal", [False, True])
def test_drafts_are_those_of_a_whole_cache(causal):
    drafter, rng = small_drafter(TARGET, sliding_windows=[7, 12], causal=causal), np.random.default_rng(0)
    whole, bounded = [KVCache(), KVCache()], [narrow(7, 5), narrow(12, 5)]
    for count in (30, 2, 0, 5, 1, 17, 3, 3, 8, 40, 4):
        features = mx.array(rng.normal(size=(1, count, 96)).astype(np.float32))
        block = mx.array(rng.normal(size=(1, 6, 32)).astype(np.float32))
        got, want = (np.array(drafter(block, features, cache)) for cache in (bounded, whole))
        np.testing.assert_allclose(got, want, atol=2e-5)
        if count == 8:
            for cache in (*whole, *bounded):
                cache.offset -= 10
    assert bounded[0].first > 30  # something was given up


def test_a_limit_is_a_window_of_every_layer():
    drafter = small_drafter(TARGET, sliding_windows=[5, 0])
    drafter.limit_window(9)
    assert drafter.config.windows == (5, 9)
    assert [layer.self_attn.window for layer in drafter.layers] == [5, 9]
    assert [type(cache) for cache in drafter.make_cache()] == [WindowCache, WindowCache]
    with pytest.raises(OptionError):
        drafter.limit_window(0)


def limited_pair(window):
    drafter = small_drafter(TARGET)
    drafter.limit_window(window)
    pair = Pair(TARGET, drafter, make_tokenizer())
    pair.tokenizer.eos_token_ids.clear()
    return pair


@pytest.mark.parametrize("window", [1, 6, 40])
def test_texts_stay_the_same_and_drafts_change(window):
    prompt, free, limited = [5, 9, 23, 41, 12, 7] * 8, limited_pair(10**6), limited_pair(window)
    runs = [list(stream_generate(pair, prompt, 40, tree_budget=8)) for pair in (free, limited)]
    texts = [[t for r in run for t in r.tokens] for run in runs]
    assert texts[0] == texts[1]
    drafts = [[t for r in run for t in r.round.tree.token_ids.tolist()] for run in runs]
    assert drafts[0] != drafts[1]


def test_a_session_goes_back_further_than_the_window_was_kept():
    """Then the drafter's context begins anew at that position; the answers are those of a fresh start."""
    pair = limited_pair(6)
    session = Session(pair)
    for layer in session.cache[pair.target.num_caches :]:
        layer.keep, layer.step = 8, 4
    ids = [int(i) for i in np.random.default_rng(0).integers(4, 60, 90)]
    for prompt in (ids, ids[:20], [*ids[:10], 7, 8], ids):
        said = [t for r in session.stream(prompt, 16, tree_budget=6) for t in r.tokens]
        assert said == [t for r in stream_generate(pair, prompt, 16, method="ar") for t in r.tokens]
        assert {layer.offset for layer in session.cache} == {len(prompt) + 16}


def test_branches_behind_a_prompt_longer_than_the_window():
    """Each is drafted as if alone, though the prompt's beginning is gone."""
    pair = limited_pair(6)
    prompt = [int(i) for i in np.random.default_rng(1).integers(4, 60, 200)]
    make = pair.drafter.make_cache

    def early():
        caches = make()
        for cache in caches:
            cache.keep, cache.step = 8, 4
        return caches

    pair.drafter.make_cache = early
    alone = [
        [r.tokens for r in stream_generate(pair, prompt, 16, tree_budget=6, sampler=make_sampler(0.4, seed=i))]
        for i in (3, 4)
    ]
    together = list(
        stream_branches(pair, prompt, 2, 16, tree_budget=6, sampler=make_sampler(0.4, seed=3), prefill_step_size=50)
    )
    for i in (0, 1):
        assert [r.tokens[i] for r in together if r.tokens[i]] == alone[i]


def test_the_option_of_load():
    pair = load(draft_window=48)
    assert pair.drafter.config.windows == (48, 48)
    assert "windows 48" in pair.notes["drafter_config"]  # so that a profile of its own is measured
    with pytest.raises(OptionError):
        load(draft_window=0)
