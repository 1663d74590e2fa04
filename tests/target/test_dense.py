"""Tree-masked verification computes, for every node, what decoding its path alone computes."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache, QuantizedKVCache, RotatingKVCache, make_prompt_cache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target import DenseTarget
from mlx_ddtree.tree import DraftTree

from ..helpers import small_target

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = {
    "qwen3": {"family": "qwen3"},
    "qwen3 untied": {"family": "qwen3", "tied": False},
    "qwen3 one kv head": {"family": "qwen3", "kv_heads": 1},
    "qwen3 4-bit": {"family": "qwen3", "bits": 4},
    "qwen3 yarn": {
        "family": "qwen3",
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "qwen3_moe": {"family": "qwen3_moe"},
    "llama": {"family": "llama"},
    "llama untied, no GQA": {"family": "llama", "tied": False, "kv_heads": 4},
    "llama3 rope": {"family": "llama", "rope_scaling": LLAMA3_ROPE},
}
CONTEXT = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9]


@pytest.fixture(params=VARIANTS, scope="module")
def target(request):
    return small_target(**VARIANTS[request.param])


def random_tree(rng: np.random.Generator, nodes: int, vocab: int) -> DraftTree:
    parents, depths = [-1], [0]
    for i in range(1, nodes + 1):
        parents.append(int(rng.integers(0, i)))
        depths.append(depths[parents[-1]] + 1)
    tokens = rng.integers(0, vocab, nodes + 1)
    return DraftTree(*(np.array(a, np.int32) for a in (tokens, parents, depths)), np.zeros(nodes + 1, np.float32))


def prefilled(target: DenseTarget) -> list[KVCache]:
    cache = target.make_cache()
    target.forward(mx.array([CONTEXT]), cache)
    return cache


def tree_logits(target: DenseTarget, tree: DraftTree, cache: list[KVCache], padding: int = 0) -> np.ndarray:
    tokens = np.concatenate([tree.token_ids, np.zeros(padding, np.int32)])
    hidden, _ = target.forward_tree(mx.array(tokens)[None], tree, len(CONTEXT), cache)
    return np.array(target.unembed(hidden)[0, : len(tree)])


def path_logits(target: DenseTarget, tree: DraftTree, node: int) -> np.ndarray:
    """Plain decoding of the node's path, one token at a time, with the model's own call."""
    cache = prefilled(target)
    for i in tree.path_to(node):
        logits = target.model(mx.array([[int(tree.token_ids[i])]]), cache=cache)
    return np.array(logits[0, -1])


@pytest.mark.parametrize("padding", [0, 3])
def test_every_node_sees_its_own_path_only(target, padding):
    tree = random_tree(np.random.default_rng(0), 12, target.vocab_size)
    got = tree_logits(target, tree, prefilled(target), padding)
    want = np.stack([path_logits(target, tree, node) for node in range(len(tree))])
    np.testing.assert_allclose(got, want, atol=2e-4 * np.abs(want).max())
    assert (got.argmax(-1) == want.argmax(-1)).all()


def test_commit_leaves_what_plain_decoding_leaves(target):
    """After keeping a path, the cache's rows and the next logits equal those of decoding the path."""
    tree = random_tree(np.random.default_rng(1), 10, target.vocab_size)
    path = tree.path_to(int(tree.depths.argmax()))
    cache = prefilled(target)
    tree_logits(target, tree, cache)
    target.commit(cache, len(CONTEXT), path)

    plain = prefilled(target)
    for i in path:
        target.model(mx.array([[int(tree.token_ids[i])]]), cache=plain)
    for ours, theirs in zip(cache, plain, strict=True):
        assert ours.offset == theirs.offset == len(CONTEXT) + len(path)
        for a, b in zip(ours.keys_and_values(), theirs.keys_and_values(), strict=True):
            np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-4)
    following = mx.array([[7]])
    np.testing.assert_allclose(
        np.array(target.model(following, cache=cache)), np.array(target.model(following, cache=plain)), atol=1e-3
    )


def test_commit_of_nothing_rolls_back(target):
    cache = prefilled(target)
    before = np.array(target.model(mx.array([[5]]), cache=prefilled(target)))
    tree_logits(target, random_tree(np.random.default_rng(2), 6, target.vocab_size), cache)
    target.commit(cache, len(CONTEXT), [])
    assert all(c.offset == len(CONTEXT) for c in cache)
    np.testing.assert_allclose(np.array(target.model(mx.array([[5]]), cache=cache)), before, atol=1e-5)


def test_chain_under_the_tree_mask_equals_the_causal_path(target):
    """The two ways to verify a chain agree bit for bit."""
    chain = DraftTree.chain(np.array([4, 8, 15, 16, 23], np.int32))
    hidden, _ = target.forward(mx.array(chain.token_ids)[None], prefilled(target))
    causal = np.array(target.unembed(hidden)[0])
    np.testing.assert_array_equal(tree_logits(target, chain, prefilled(target)), causal)


def test_forward_equals_the_models_own_call(target):
    hidden, _ = target.forward(mx.array([CONTEXT]), target.make_cache())
    own = target.model(mx.array([CONTEXT]), cache=make_prompt_cache(target.model))
    np.testing.assert_array_equal(np.array(target.unembed(hidden)), np.array(own))


def test_taps_are_the_layers_outputs():
    """Features are the outputs of the tapped layers, concatenated in tap order."""
    target = small_target("qwen3", layers=4)
    target.taps = (2, 0)
    _, features = target.forward(mx.array([CONTEXT]), target.make_cache())
    hidden = target.embed(mx.array([CONTEXT]))
    outputs = []
    for layer in target.model.layers:
        hidden = layer(hidden, "causal", None)
        outputs.append(hidden)
    np.testing.assert_allclose(np.array(features), np.array(mx.concatenate([outputs[2], outputs[0]], -1)), atol=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_commit_keeps_any_path(seed, nodes):
    """For random trees and nodes, the committed rows are the path's rows, in path order."""
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, nodes, 64)
    path = tree.path_to(int(rng.integers(0, nodes + 1)))
    cache = KVCache()
    rows = mx.random.normal((1, 2, 5 + nodes + 1, 4))
    cache.update_and_fetch(rows, -rows)
    target = small_target("qwen3", layers=1)
    target.commit([cache], 5, path)
    want = np.array(rows)[:, :, [*range(5), *(5 + i for i in path)]]
    np.testing.assert_array_equal(np.array(cache.keys_and_values()[0]), want)
    np.testing.assert_array_equal(np.array(cache.keys_and_values()[1]), -want)


@pytest.mark.parametrize("cache", [RotatingKVCache(64), QuantizedKVCache()])
def test_caches_that_cannot_hold_a_tree_are_refused(cache):
    with pytest.raises(UnsupportedModelError, match="method='ar'"):
        small_target("qwen3").check_cache([cache])


def test_the_model_still_works_with_mlx_lm():
    """Only this instance's rope modules are wrapped; the parameters keep their names."""
    target = small_target("llama")
    names = [name for name, _ in __import__("mlx.utils").utils.tree_flatten(target.model.parameters())]
    assert not any("rope" in name for name in names)
    assert DenseTarget(target.model).model.layers[0].self_attn.rope is target.model.layers[0].self_attn.rope
