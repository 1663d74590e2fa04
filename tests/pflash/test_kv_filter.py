"""Filtered caches: every head keeps what the prompt's end attends to, at the positions it had."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from mlx_ddtree import make_prompt_cache, make_sampler, stream_generate
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.pflash.compress import PrefillCompression
from mlx_ddtree.pflash.kv_filter import POOL, SINKS, WINDOW, chosen_rows, filter_cache, importance
from mlx_ddtree.target.last_queries import LAST_QUERIES, last_queries_views

from .. import families

tiny_pair = cache(families.tiny_pair)
PROMPT = np.random.default_rng(3).integers(3, 60, 200).tolist()


def reference_importance(queries, keys, scale):
    """(H, L): straight from the definition, one head and row at a time."""
    query_heads, tail = queries.shape[:2]
    heads, length = keys.shape[:2]
    group, out = query_heads // heads, np.zeros((heads, length))
    for head in range(heads):
        paid = np.zeros((group, tail, length))
        for g in range(group):
            for t in range(tail):
                seen = length - tail + t + 1
                logits = keys[head, :seen] @ queries[head * group + g, t] * scale
                p = np.exp(logits - logits.max())
                paid[g, t, :seen] = p / p.sum()
        out[head] = paid.max(axis=0).mean(axis=0)
    return out


def reference_rows(scores, keep, sinks):
    """The set of rows of each head."""
    out = []
    for row in scores:
        n = len(row)
        smooth = [row[max(0, i - POOL // 2) : i + POOL // 2 + 1].mean() for i in range(n)]
        forced = [i for i in range(n) if i < sinks or i >= n - WINDOW]
        rest = sorted((i for i in range(n) if i not in forced), key=lambda i: -smooth[i])
        out.append(sorted([*forced, *rest[: keep - len(forced)]]))
    return np.array(out)


def arrays(seed, heads, group, tail, length, dim=8):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(np.float32) for shape in ((heads * group, tail, dim), (heads, length, dim)))


@settings(max_examples=25)
@given(
    st.integers(0, 99), st.sampled_from([(1, 4), (2, 2), (4, 1)]), st.integers(1, 8), st.integers(80, 150), st.data()
)
def test_importance_and_choice_equal_the_reference(seed, heads, tail, length, data):
    queries, keys = arrays(seed, *heads, tail, length)
    got = importance(mx.array(queries)[None], mx.array(keys)[None], 0.3)
    want = reference_importance(queries, keys, 0.3)
    np.testing.assert_allclose(np.array(got), want, atol=1e-5)
    keep = data.draw(st.integers(SINKS + WINDOW + 1, length))
    np.testing.assert_array_equal(np.array(chosen_rows(mx.array(want), keep, SINKS)), reference_rows(want, keep, SINKS))


class HeadwiseCache(KVCache):
    """The oracle: all rows are there, and each query head's mask leaves out what its KV head has dropped."""

    def make_mask(self, n, return_array=False, window_size=None):
        if not hasattr(self, "seen"):
            return super().make_mask(n, return_array=return_array, window_size=window_size)
        places = mx.arange(self.offset + n)
        causal = places[None] <= mx.arange(self.offset, self.offset + n)[:, None]
        late = mx.broadcast_to(mx.array([True]), (len(self.seen), self.offset + n - self.seen.shape[1]))
        return (mx.concatenate([self.seen, late], axis=1)[:, None] & causal[None])[None]


@pytest.mark.parametrize("name", ["qwen3", "qwen3, one kv head", "llama, no groups", "minimax"])
@pytest.mark.parametrize("ratio", [0.4, 0.7])
def test_decoding_equals_masked_attention_per_head(name, ratio):
    """Every layer has its own masks, so the oracle runs the model's layers with the choice made from its own caches."""
    pair = tiny_pair(name)
    last, said, logprobs = None, [], []
    prompt_cache = make_prompt_cache(pair)
    for last in stream_generate(
        pair, PROMPT, 12, kv_keep_ratio=ratio, tree_budget=6, parity="off", prompt_cache=prompt_cache
    ):
        said += last.tokens
        logprobs.append(np.array(last.logprobs))
    assert last.compression.kv_rows == (199, int(np.ceil(ratio * 199)))
    oracle = [HeadwiseCache() for _ in pair.target.make_cache()]
    views = last_queries_of(oracle)
    pair.target.forward(mx.array([PROMPT[:-1]]), views)
    for layer, view in zip(oracle, views, strict=True):
        keys = np.array(layer.keys[0, :, :199])
        rows = reference_rows(
            reference_importance(np.array(view.queries[0]), keys, view.scale), last.compression.kv_rows[1], SINKS
        )
        seen = np.zeros((view.queries.shape[1], 199), np.bool_)
        for head in range(len(seen)):
            seen[head, rows[head * len(rows) // len(seen)]] = True
        layer.seen = mx.array(seen)
    hidden = []
    for token in [PROMPT[-1], *said[:-1]]:
        hidden.append(per_layer_forward(pair.target, token, oracle))
    want = np.array(pair.target.unembed(mx.concatenate(hidden)))
    got = np.concatenate(logprobs)
    np.testing.assert_allclose(got - got[:, :1], want - want[:, :1], atol=1e-4 * np.abs(want).max())


def last_queries_of(caches):
    """last_queries_views takes KVCaches themselves, not subclasses."""
    return [type(last_queries_views([KVCache()])[0])(layer) for layer in caches]


def per_layer_forward(target, token, caches):
    """One token through mlx-lm's layers, each with a mask of its own."""
    inner = target.text.model
    x = inner.embed_tokens(mx.array([[token]]))
    for layer, layer_cache in zip(inner.layers, caches, strict=True):
        x = layer(x, layer_cache.make_mask(1), layer_cache)
    return inner.norm(x)[0]


def answer(pair, ratio, n=40, prompt=PROMPT, **options):
    responses = list(stream_generate(pair, prompt, n, kv_keep_ratio=ratio, **options))
    return [t for r in responses for t in r.tokens], responses[-1]


def test_ratio_one_changes_nothing():
    pair = tiny_pair("qwen3")
    tokens, last = answer(pair, 1.0, tree_budget=6)
    assert tokens == answer(pair, None, tree_budget=6)[0]
    assert last.compression.kv_rows == (199, 199) and last.compression.kv_refused is None


@pytest.mark.parametrize("name", ["qwen3", "qwen3_moe", "minimax", "qwen3_5", "qwen3_next"])
def test_all_methods_say_the_same(name):
    """Hybrids too: only their attention layers have rows to filter."""
    pair = tiny_pair(name)
    for sampler in (None, make_sampler(0.9, seed=4)):
        said = [
            answer(pair, 0.5, 20, sampler=sampler, parity="off", **how)[0]
            for how in ({"method": "ar"}, {"method": "dflash", "block_size": 6}, {"tree_budget": 9})
        ]
        assert said[0] == said[1] == said[2]
    assert said[0] != answer(pair, None, 20, sampler=sampler, parity="off", tree_budget=9)[0]


def test_a_compressed_prompt_can_be_filtered_too():
    pair = tiny_pair("qwen3")
    compression = PrefillCompression("always", keep_ratio=0.8, scorer="lexical", least=40, chunk=4)
    tokens, last = answer(pair, 0.6, compression=compression, tree_budget=6)
    kept = last.compression.kept_tokens
    assert last.compression.kv_rows == (kept - 1, int(np.ceil(0.6 * (kept - 1))))
    assert tokens == answer(pair, 0.6, compression=compression, method="ar")[0]


def test_short_prompts_are_not_filtered_and_say_so():
    pair = tiny_pair("qwen3")
    tokens, last = answer(pair, 0.5, prompt=PROMPT[:50])
    assert tokens == answer(pair, None, prompt=PROMPT[:50])[0]
    assert "too few" in last.compression.kv_refused and "not filtered" in last.compression.lines()


@pytest.mark.parametrize("name", ["llama, windows", "gpt_oss", "gemma4, shared keys", "kimi_k25"])
def test_other_caches_are_refused_with_the_alternative(name):
    with pytest.raises(UnsupportedModelError, match="--prefill-compression"):
        answer(tiny_pair(name), 0.5)


def test_quantised_caches_and_wrong_ratios_are_refused():
    pair = families.tiny_pair("qwen3", head_dim=32)
    prompt_cache = make_prompt_cache(pair)
    prompt_cache[0] = QuantizedKVCache(32, 8)
    with pytest.raises(UnsupportedModelError, match="QuantizedKVCache"):
        answer(pair, 0.5, prompt_cache=prompt_cache)
    for ratio in (0.0, 1.1, -1):
        with pytest.raises(OptionError, match="ratio"):
            answer(pair, ratio)


def test_an_interrupt_leaves_all_caches_or_none_filtered(monkeypatch):
    pair, caught = tiny_pair("qwen3"), 0
    chosen = chosen_rows
    for at in range(1, 5):
        caches, calls = make_prompt_cache(pair), []
        state = DecodeState(pair, caches)
        views = last_queries_views(state.caches.target)
        prefill(state, PROMPT, 64, through=views)

        def interrupted(*args, at=at, calls=calls):
            calls.append(args)
            if len(calls) == at:
                raise KeyboardInterrupt
            return chosen(*args)

        monkeypatch.setattr("mlx_ddtree.pflash.kv_filter.chosen_rows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            filter_cache(state, views, 0.5)
        caught += 1
        assert {c.offset for c in caches} == {199} and state.length == 199 and state.coverage.gap == 0
    assert caught == 4


@pytest.mark.parametrize("step", [1, 7, 64, 500])
def test_the_tail_is_seen_whatever_the_chunks(step):
    pair = tiny_pair("qwen3")
    want, got = ([], [])
    for size, out in ((500, want), (step, got)):
        caches = make_prompt_cache(pair)
        state = DecodeState(pair, caches)
        views = last_queries_views(state.caches.target)
        prefill(state, PROMPT[:80], size, through=views)
        out += [np.array(view.queries) for view in views]
    for a, b in zip(want, got, strict=True):
        assert a.shape[2] == LAST_QUERIES
        np.testing.assert_allclose(a, b, atol=1e-3)
