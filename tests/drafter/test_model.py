"""The drafter computes what its description says, round after round."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ..helpers import small_drafter, small_target
from .reference import draft_hidden

VARIANTS = {
    "full": {},
    "one kv head": {"num_key_value_heads": 1},
    "no GQA": {"num_key_value_heads": 4},
    "attention bias": {"attention_bias": True},
    "embedding scale": {"embed_scale": 5.5},
    "causal": {"causal": True},
    "sliding, causal by default": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 9},
    "sliding, bidirectional": {"sliding_windows": [6, 11], "is_causal": False},
    "window shorter than the block": {"sliding_windows": [3, None], "is_causal": False},
}


def weights_of(drafter):
    return {name: np.array(value, np.float64) for name, value in tree_flatten(drafter.parameters())}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_reference_over_growing_rounds(variant):
    target = small_target()
    drafter = small_drafter(target, **VARIANTS[variant])
    cache, weights = drafter.make_cache(), weights_of(drafter)
    rng = np.random.default_rng(0)
    seen = np.zeros((0, 3 * target.hidden_size))
    for new, size in ((5, 8), (1, 8), (0, 8), (9, 4), (3, 2), (12, 8)):
        features = rng.normal(size=(new, seen.shape[1])).astype(np.float32)
        embeddings = rng.normal(size=(size, target.hidden_size)).astype(np.float32)
        seen = np.concatenate([seen, features])
        got = drafter(mx.array(embeddings)[None], mx.array(features)[None], cache)
        want = draft_hidden(weights, drafter.config, embeddings.astype(np.float64), seen)
        np.testing.assert_allclose(np.array(got[0]), want, atol=2e-3 * np.abs(want).max())
        assert [c.offset for c in cache] == [len(seen)] * 2  # the block left nothing behind


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_may_come_in_any_chunks(variant):
    target = small_target()
    drafter = small_drafter(target, **VARIANTS[variant])
    features = mx.random.normal((1, 20, 3 * target.hidden_size), key=mx.random.key(0))
    block = mx.random.normal((1, 8, target.hidden_size), key=mx.random.key(1))
    at_once = drafter(block, features, drafter.make_cache())
    cache = drafter.make_cache()
    for start, stop in ((0, 1), (1, 8), (8, 17)):
        drafter.extend(features[:, start:stop], cache)
    in_chunks = drafter(block, features[:, 17:], cache)
    np.testing.assert_allclose(np.array(at_once), np.array(in_chunks), atol=1e-4)


def test_half_precision_is_close():
    target = small_target()
    drafter = small_drafter(target)
    features = mx.random.normal((1, 20, 3 * target.hidden_size), key=mx.random.key(0))
    block = mx.random.normal((1, 8, target.hidden_size), key=mx.random.key(1))
    exact = np.array(drafter(block, features, drafter.make_cache()))
    drafter.set_dtype(mx.bfloat16)
    half = drafter(block.astype(mx.bfloat16), features.astype(mx.bfloat16), drafter.make_cache())
    assert half.dtype == mx.bfloat16
    error = np.linalg.norm(np.array(half.astype(mx.float32)) - exact) / np.linalg.norm(exact)
    assert error < 0.2


def test_logit_scaling():
    drafter = small_drafter(small_target(), final_logit_softcapping=2.0, output_multiplier=3.0)
    logits = mx.array([[0.5, -10.0]])
    np.testing.assert_allclose(np.array(drafter.scale_logits(logits)), 2 * np.tanh(3 * np.array(logits) / 2), rtol=1e-5)
