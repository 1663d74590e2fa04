"""A tree's rows can go to a kernel: the model's own code then computes the same, and nobody else notices."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import QuantizedKVCache, RotatingKVCache, make_prompt_cache

from mlx_ddtree.kernels.choice import NO_KERNELS, KernelSet, always
from mlx_ddtree.kernels.tree_attention import tree_attention, tree_attention_ops

from ..families import FAMILIES, tiny_model, tiny_target
from ..metal_host import HostLaunch, missing_compiler
from .test_families import CONTEXTS, TREES, deepest, prefilled, verify

needs_compiler = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
LATENT = ("deepseek_v3", "kimi_k25")  # their mask is added to scores of their own


class Counted:
    """An attention that notes what it was called with."""

    def __init__(self, attention=tree_attention_ops):
        self.attention, self.calls = attention, []

    def __call__(self, queries, keys, values, tree, **how):
        self.calls.append((queries.shape, how))
        return self.attention(queries, keys, values, tree, **how)


def both(target, tree, context, attention, padding=0, make_cache=None):
    """Logits and caches after a commit, with mlx-lm's attention and with `attention`."""
    results = []
    for target.kernels in (NO_KERNELS, always(KernelSet(attention=attention))):
        cache = prefilled(target, context, make_cache)
        logits, _, pending = verify(target, tree, cache, len(context), padding)
        pending.commit(deepest(tree))
        follows = target.model(mx.array([[7]]), cache=cache)
        results.append((logits, np.array(follows)))
    target.kernels = NO_KERNELS
    return results


def assert_same(results, tolerance):
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got, want, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("length", CONTEXTS)
def test_every_family_computes_the_same_with_the_reference(name, length):
    """Trees with padding and chains; windows, sinks, shared keys."""
    target = tiny_target(name)
    attention = Counted()
    for tree, padding in (("bushy", 3), ("long chain", 0)):
        assert_same(both(target, TREES[tree], CONTEXTS[length], attention, padding), 1e-5)
    if name in LATENT:
        assert not attention.calls
    else:
        layers = sum(hasattr(layer, "self_attn") for layer in target.layers)
        assert len(attention.calls) == 2 * layers, "some layer's rows went elsewhere"
        assert any(how["sinks"] is not None for _, how in attention.calls) == (name == "gpt_oss")


@needs_compiler
@pytest.mark.parametrize("name", ["llama, windows", "gpt_oss"])
def test_families_compute_the_same_with_the_kernel(name):
    target, launch = tiny_target(name), HostLaunch("fast")
    attention = partial(tree_attention, launch=launch)
    assert_same(both(target, TREES["bushy"], CONTEXTS["past the windows"], attention, padding=3), 1e-4)
    assert {launched.kernel for launched in launch.launches} == {"tree_attention", "merge_attention"}


def test_no_mask_of_all_keys_is_made():
    """With a long context it would be the largest array of the round."""
    target = tiny_target("llama, windows")
    seen = []

    def attention(queries, keys, values, tree, **how):
        seen.append(tree)
        return tree_attention_ops(queries, keys, values, tree, **how)

    target.kernels = always(KernelSet(attention=attention))
    cache = prefilled(target, CONTEXTS["short"])
    _, _, pending = verify(target, TREES["bushy"], cache, 5)
    rows = pending.views[0].rows
    assert not rows._masks
    assert all(tree.words is rows.bits.words for tree in seen), "the bits are uploaded once"


@pytest.mark.parametrize("make", [lambda: QuantizedKVCache(32, 8), lambda: RotatingKVCache(12, keep=4)])
def test_other_caches(make):
    target = tiny_target("qwen3", head_dim=32)
    attention = Counted()

    def make_cache():
        return [make() for _ in target.layers]

    results = both(target, TREES["bushy"], CONTEXTS["past the windows"], attention, 2, make_cache)
    assert_same(results, 1e-5)
    assert len(attention.calls) == len(target.layers)


def test_what_the_kernel_does_not_take_goes_the_old_way():
    """Head sizes that are no multiple of 16."""
    target = tiny_target("qwen3", head_dim=24)
    attention = Counted()
    results = both(target, TREES["bushy"], CONTEXTS["short"], attention)
    assert_same(results, 0)
    assert not attention.calls


def test_only_this_instance_changes():
    """Another model of the family, and the classes of mlx-lm, know nothing of it."""
    other = tiny_model(FAMILIES["llama, windows"])
    before = type(other.layers[0].self_attn)
    target = tiny_target("llama, windows")
    assert type(other.layers[0].self_attn) is before and before is not type(target.layers[0].self_attn)
    assert isinstance(target.layers[0].self_attn, before)
    attention = Counted()
    target.kernels = always(KernelSet(attention=attention))
    tokens = mx.array([CONTEXTS["past the windows"]])
    own = target.model(tokens, cache=make_prompt_cache(target.model))
    np.testing.assert_array_equal(np.array(own), np.array(other(tokens, cache=make_prompt_cache(other))))
    assert not attention.calls
