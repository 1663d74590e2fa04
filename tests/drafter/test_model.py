"""The MLX drafter computes DFlash as defined (reference.py), round after round."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map

from ..helpers import small_drafter, small_target
from .reference import Reference

SLIDING, FULL = "sliding_attention", "full_attention"
VARIANTS = {
    "full": {},
    "sliding, causal by default": {"layer_types": [SLIDING, FULL], "sliding_window": 11},
    "sliding, bidirectional": {"layer_types": [SLIDING, SLIDING], "sliding_window": 9, "causal": False},
    "window of the block": {"sliding_windows": [8, 0], "causal": False},
    "window shorter than the block": {"sliding_windows": [3, 5], "causal": False},
    "window shorter than the block, causal": {"sliding_windows": [3, 5]},
    "causal everywhere": {"is_causal": True},
    "one kv head": {"num_key_value_heads": 1},
    "no sharing of heads": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True},
    "scaled embeddings": {"embed_scale": 5.65},
    "interleaved rope": {"interleaved": True},
    "other head size, theta and eps": {"head_dim": 6, "rope_theta": 1e6, "rms_norm_eps": 1e-2},
}
TARGET = small_target(layers=3)
TAPS, BLOCK = 3, 8


def make(**config):
    """A drafter with no weight at its neutral value, and the reference with the same weights."""
    drafter = small_drafter(TARGET, block_size=BLOCK, **config)
    mx.random.seed(5)
    drafter.update(tree_map(lambda p: p if p.ndim > 1 else p + 0.5 * mx.random.normal(p.shape), drafter.parameters()))
    mx.eval(drafter.parameters())
    return drafter, reference(drafter)


def reference(drafter):
    c = drafter.config
    return Reference(
        {name: np.array(p.astype(mx.float32), np.float64) for name, p in tree_flatten(drafter.parameters())},
        c.num_attention_heads, c.num_key_value_heads, c.windows, c.causal,
        c.rope_theta, c.rms_norm_eps, c.rope_traditional, c.embed_scale,
    )  # fmt: skip


def rows(rng, count, width=TARGET.hidden_size):
    return rng.normal(size=(count, width)).astype(np.float32)


def run(drafter, block, features, cache, dtype=mx.float32):
    out = drafter(mx.array(block)[None].astype(dtype), mx.array(features)[None].astype(dtype), cache)
    return np.array(out[0].astype(mx.float32))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rounds_equal_the_reference(variant):
    """Each round appends 0 to 9 features to the cache; the reference sees them all at once."""
    drafter, expected = make(**VARIANTS[variant])
    rng, cache, seen = np.random.default_rng(0), drafter.make_cache(), np.zeros((0, TAPS * 32), np.float32)
    for new in (5, 1, 9, 0, 3, 2, 7, 0, 4, 8, 6):
        features, block = rows(rng, new, TAPS * 32), rows(rng, BLOCK)
        seen = np.concatenate([seen, features])
        got = run(drafter, block, features, cache)
        np.testing.assert_allclose(got, expected(block, seen), atol=2e-4)
        assert [c.offset for c in cache] == [len(seen)] * len(cache)


@pytest.mark.parametrize("variant", ["full", "interleaved rope", "other head size, theta and eps"])
def test_a_context_with_holes_stands_at_its_own_positions(variant):
    """Kept tokens of a prompt, then rounds whose tokens follow one another behind the whole prompt."""
    drafter, expected = make(**VARIANTS[variant])
    rng, cache = np.random.default_rng(1), drafter.make_cache()
    at = np.sort(rng.choice(40, 15, replace=False))
    seen = rows(rng, 15, TAPS * 32)
    for part in (slice(0, 9), slice(9, 15)):
        drafter.extend(mx.array(seen[part])[None], cache, mx.array(at[part])[None])
    gap = 40 - 15
    for new in (2, 0, 5):
        features, block = rows(rng, new, TAPS * 32), rows(rng, BLOCK)
        seen, at = np.concatenate([seen, features]), np.concatenate([at, 25 + np.arange(len(seen), len(seen) + new)])
        got = drafter(mx.array(block)[None], mx.array(features)[None], cache, gap)
        places = np.concatenate([at, len(seen) + gap + np.arange(BLOCK)])
        np.testing.assert_allclose(np.array(got[0]), expected(block, seen, places), atol=2e-4)


@settings(max_examples=25)
@given(
    window=st.integers(1, 24),
    causal=st.booleans(),
    new=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    size=st.integers(2, BLOCK),
)
def test_windows_and_causality_of_any_size(window, causal, new, size):
    """Shorter blocks than the trained one included."""
    drafter, expected = make(sliding_windows=[window, 0], causal=causal)
    rng, cache = np.random.default_rng(1), drafter.make_cache()
    seen = np.zeros((0, TAPS * 32), np.float32)
    for count in new:
        features, block = rows(rng, count, TAPS * 32), rows(rng, size)
        seen = np.concatenate([seen, features])
        np.testing.assert_allclose(run(drafter, block, features, cache), expected(block, seen), atol=2e-4)


@pytest.mark.parametrize("variant", ["full", "sliding, causal by default", "biases"])
def test_features_in_one_chunk_or_many(variant):
    """extend() in any chunks, then a draft, equals one draft that brings all features."""
    drafter, _ = make(**VARIANTS[variant])
    rng = np.random.default_rng(2)
    features, block = rows(rng, 21, TAPS * 32), rows(rng, BLOCK)
    whole = run(drafter, block, features, drafter.make_cache())
    for chunks in ([21], [1] * 21, [13, 8], [2, 18, 1]):
        cache, start = drafter.make_cache(), 0
        for count in chunks:
            drafter.extend(mx.array(features[None, start : start + count]), cache)
            start += count
        np.testing.assert_allclose(run(drafter, block, features[:0], cache), whole, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_draft_leaves_only_the_context_in_the_cache(variant):
    drafter, _ = make(**VARIANTS[variant])
    rng = np.random.default_rng(3)
    features, block = rows(rng, 10, TAPS * 32), rows(rng, BLOCK)
    drafted, extended = drafter.make_cache(), drafter.make_cache()
    run(drafter, block, features, drafted)
    drafter.extend(mx.array(features[None]), extended)
    for ours, theirs in zip(drafted, extended, strict=True):
        for a, b in zip(ours.keys_and_values(), theirs.keys_and_values(), strict=True):
            np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-5)


def test_the_same_draft_twice_is_the_same():
    """No state but the cache: a second draft at the same place, without new features, is identical."""
    drafter, _ = make()
    rng, cache = np.random.default_rng(4), drafter.make_cache()
    features, block = rows(rng, 6, TAPS * 32), rows(rng, BLOCK)
    first = run(drafter, block, features, cache)
    run(drafter, rows(rng, BLOCK), features[:0], cache)
    np.testing.assert_allclose(run(drafter, block, features[:0], cache), first, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(mx.float16, 0.02), (mx.bfloat16, 0.15)], ids=str)
def test_half_precision_stays_close(dtype, tolerance):
    """Relative to the size of the hidden states, over a growing cache."""
    drafter, _ = make(layer_types=[SLIDING, FULL], sliding_window=11)
    drafter.set_dtype(dtype)
    expected = reference(drafter)
    rng, cache, seen = np.random.default_rng(6), drafter.make_cache(), np.zeros((0, TAPS * 32), np.float32)
    for new in (7, 3, 9):
        features, block = rows(rng, new, TAPS * 32), rows(rng, BLOCK)
        seen = np.concatenate([seen, features])
        want = expected(block, seen)
        error = run(drafter, block, features, cache, dtype) - want
        assert np.sqrt((error**2).mean() / (want**2).mean()) < tolerance


def test_logits_scale_and_softcap():
    """output_multiplier, then the soft cap, as in Gemma."""
    logits = np.linspace(-90, 90, 7, dtype=np.float32)
    drafter = small_drafter(TARGET, output_multiplier=0.5, final_logit_softcapping=30.0)
    got = np.array(drafter.scale_logits(mx.array(logits)))
    np.testing.assert_allclose(got, 30 * np.tanh(logits * 0.5 / 30), rtol=1e-5)
    np.testing.assert_array_equal(np.array(small_drafter(TARGET).scale_logits(mx.array(logits))), logits)
