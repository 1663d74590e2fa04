"""The losslessness battery of a target, for every family: a tree's rows compute what plain decoding of each
path computes, and a commit leaves what it leaves."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import QuantizedKVCache, RotatingKVCache, make_prompt_cache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target import TREE_FAMILIES, PlainTarget, TreeTarget, make_target
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree

from ..every_model import mute_model
from ..families import FAMILIES, tiny_target

RNG = np.random.default_rng(0)
CONTEXTS = {"short": [3, 14, 15, 9, 26], "past the windows": RNG.integers(0, 64, 29).tolist()}


@pytest.fixture(params=FAMILIES, scope="module")
def target(request):
    return tiny_target(request.param)


@pytest.fixture(params=CONTEXTS)
def context(request):
    return CONTEXTS[request.param]


def random_tree(rng: np.random.Generator, nodes: int, vocab: int = 64) -> DraftTree:
    parents, depths = [-1], [0]
    for i in range(1, nodes + 1):
        parents.append(int(rng.integers(max(0, i - 4), i)))
        depths.append(depths[parents[-1]] + 1)
    tokens = rng.integers(0, vocab, nodes + 1)
    return DraftTree(*(np.array(a, np.int32) for a in (tokens, parents, depths)), np.zeros(nodes + 1, np.float32))


TREES = {
    "bushy": random_tree(np.random.default_rng(1), 12),
    "chain": DraftTree.chain(RNG.integers(0, 64, 6)),
    "long chain": DraftTree.chain(RNG.integers(0, 64, 18)),  # longer than the windows
    "star": DraftTree(*(np.array(a, np.int32) for a in ([1, 2, 3, 4], [-1, 0, 0, 0], [0, 1, 1, 1])), np.zeros(4)),
}


def prefilled(target: TreeTarget, context, make_cache=None):
    """A cache after `context`, as generation leaves it: the last token by a row of its own."""
    cache = make_cache() if make_cache else target.make_cache()
    target.forward(mx.array([context[:-1]]), cache)
    target.forward(mx.array([context[-1:]]), cache)
    return cache


def verify(target, tree, cache, start, padding=0):
    tokens = np.concatenate([tree.token_ids, np.zeros(padding, np.int32)])
    rows = TreeRows(tree, start, len(tokens))
    hidden, features, pending = target.forward_rows(mx.array(tokens)[None], rows, cache)
    return np.array(target.unembed(hidden)[0, : len(tree)]), features, pending


def step(target, token, cache):
    """Plain decoding by the model's own call."""
    return np.array(target.model(mx.array([[int(token)]]), cache=cache)[0, -1])


def assert_close(got, want):
    np.testing.assert_allclose(got, want, atol=5e-4 * np.abs(want).max())


@pytest.mark.parametrize(("tree", "padding"), [("bushy", 3), ("long chain", 0)])
def test_every_node_sees_its_own_path_only(target, context, tree, padding):
    tree = TREES[tree]
    got, _, _ = verify(target, tree, prefilled(target, context), len(context), padding)
    for leaf in set(range(len(tree))) - set(tree.parents.tolist()):
        cache = prefilled(target, context)
        for i in tree.path_to(leaf):
            assert_close(got[i], step(target, tree.token_ids[i], cache))


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "qwen3_next", "gpt_oss"])
def test_a_tree_may_be_the_first_that_a_cache_sees(family):
    target, tree = tiny_target(family), TREES["bushy"]
    got, _, _ = verify(target, tree, target.make_cache(), 0)
    for node in (3, len(tree) - 1):
        cache = target.make_cache()
        for i in tree.path_to(node):
            assert_close(got[i], step(target, tree.token_ids[i], cache))


def deepest(tree):
    return tree.path_to(int(tree.depths.argmax()))


@pytest.mark.parametrize(
    ("tree", "path_of"), [("bushy", deepest), ("chain", lambda tree: tree.path_to(2)), ("star", lambda tree: [0])]
)
def test_a_commit_leaves_what_plain_decoding_leaves(target, context, tree, path_of):
    """Keys and values, states, convolution windows, and the logits of what follows."""
    tree = TREES[tree]
    path, cache, plain = path_of(tree), prefilled(target, context), prefilled(target, context)
    _, _, pending = verify(target, tree, cache, len(context))
    pending.commit(path)
    for i in path:
        step(target, tree.token_ids[i], plain)
    assert_same_caches(cache, plain)
    for token in (7, 40, 22):
        assert_close(step(target, token, cache), step(target, token, plain))


def assert_same_caches(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert getattr(a, "offset", None) == getattr(b, "offset", None)
        for x, y in zip(contents(a), contents(b), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_allclose(np.array(x), np.array(y), atol=2e-3)


def contents(cache):
    """What counts of a cache, in its order in time; a ring's oldest rows may have been dropped already."""
    if isinstance(cache, RotatingKVCache):
        return [cache._temporal_order(x)[:, :, -(cache.max_size - 1) :] for x in (cache.keys, cache.values)]
    return cache.cache if hasattr(cache, "cache") else cache.keys_and_values()


@pytest.mark.parametrize("commits", [False, True])
def test_rewinding_undoes_rounds_and_steps(target, context, commits):
    """More than once, and however the caches were changed since."""
    cache = prefilled(target, context)
    marked = target.mark(cache)
    for tree in (TREES["bushy"], TREES["chain"]):
        _, _, pending = verify(target, tree, cache, len(context))
        if commits:
            pending.commit(deepest(tree))
            for token in (3, 30):
                step(target, token, cache)
        target.rewind(cache, marked)
    step(target, 9, cache)
    target.rewind(cache, marked)
    assert_same_caches(cache, prefilled(target, context))
    assert_close(step(target, 5, cache), step(target, 5, prefilled(target, context)))


def test_many_rounds_in_a_row(target):
    """Prefill, trees and chains, each continuing on what the last one committed: no error grows."""
    rng, text = np.random.default_rng(3), [3, 14, 15]
    cache, plain = prefilled(target, text), prefilled(target, text)
    for i in range(12):
        tree = random_tree(rng, int(rng.integers(1, 10))) if i % 3 else DraftTree.chain(rng.integers(0, 64, 3))
        path = tree.path_to(int(rng.integers(0, len(tree))))
        got, _, pending = verify(target, tree, cache, len(text), padding=0 if tree.is_chain else i % 4)
        pending.commit(path)
        for node in path:
            assert_close(got[node], step(target, tree.token_ids[node], plain))
            text.append(int(tree.token_ids[node]))
    assert_same_caches(cache, plain)


def test_the_models_own_call_is_what_it_was(target, context):
    """The adapter changes this instance, but not what mlx-lm computes with it: bit for bit."""
    hidden, _ = target.forward(mx.array([context]), target.make_cache())
    own = target.model(mx.array([context]), cache=make_prompt_cache(target.model))
    np.testing.assert_array_equal(np.array(target.unembed(hidden)), np.array(own))


def test_every_family_is_covered():
    """The battery runs on each, and each is told from its model."""
    known = {type(tiny_target(name).model).__module__.split(".")[-1] for name in FAMILIES}
    assert known | {"gemma4_text"} == set(TREE_FAMILIES)


def test_other_models_decode_plainly():
    target = make_target(mute_model())
    assert isinstance(target, PlainTarget)
    with pytest.raises(UnsupportedModelError, match=r"qwen2.*method='ar'"):
        target.forward_rows(
            mx.array(TREES["chain"].token_ids)[None],
            TreeRows(TREES["chain"], 0, len(TREES["chain"])),
            target.make_cache(),
        )


def test_the_adapter_adds_no_parameters(target):
    names = [name for name, _ in tree_flatten(target.model.parameters())]
    assert not any("rope" in name for name in names)
    again = TreeTarget(target.model)
    assert [name for name, _ in tree_flatten(again.model.parameters())] == names


def test_features_are_the_tapped_layers_outputs(target, context):
    """In tap order; and a tap that is gone costs nothing."""
    target.taps = (2, 0)
    _, features = target.forward(mx.array([context]), target.make_cache())
    parts = []
    for i in target.taps:
        target.taps = (i,)
        parts.append(target.forward(mx.array([context]), target.make_cache())[1])
    np.testing.assert_array_equal(np.array(features), np.array(mx.concatenate(parts, axis=-1)))
    last = target.num_layers - 1
    target.taps = (last,)
    hidden, features = target.forward(mx.array([context]), target.make_cache())
    np.testing.assert_array_equal(np.array(target.stack.norm(features)), np.array(hidden))
    target.taps = ()
    assert target.forward(mx.array([context]), target.make_cache())[1] is None


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5", "gpt_oss", "gemma4, shared keys", "kimi_k25"])
def test_four_bit_weights(name, context):
    target, tree = tiny_target(name, bits=4), TREES["bushy"]
    got, _, _ = verify(target, tree, prefilled(target, context), len(context))
    cache = prefilled(target, context)
    for i in deepest(tree):
        want = step(target, tree.token_ids[i], cache)
    assert_close(got[deepest(tree)[-1]], want)


@pytest.mark.parametrize("keep", [0, 4])
def test_a_cache_of_limited_size_under_a_tree(keep, context):
    """mlx-lm's max_kv_size: also with first tokens that never leave."""
    target, tree = tiny_target("qwen3"), TREES["bushy"]

    def make_cache():
        return [RotatingKVCache(12, keep=keep) for _ in target.layers]

    cache, plain = prefilled(target, context, make_cache), prefilled(target, context, make_cache)
    got, _, pending = verify(target, tree, cache, len(context))
    pending.commit(deepest(tree))
    for i in deepest(tree):
        assert_close(got[i], step(target, tree.token_ids[i], plain))
    for token in (7, 40, 22):
        assert_close(step(target, token, cache), step(target, token, plain))


@pytest.mark.parametrize("size", [5, 8, 12, 20])
def test_a_ring_of_another_size_than_the_models_window(size, context):
    """A row sees what both let it see: 12 tokens by the model, `size` by the cache."""
    target, tree = tiny_target("llama, windows"), TREES["bushy"]

    def make_cache():
        return [RotatingKVCache(size) for _ in target.layers]

    got, _, _ = verify(target, tree, prefilled(target, context, make_cache), len(context))
    plain = prefilled(target, context, make_cache)
    for i in deepest(tree):
        assert_close(got[i], step(target, tree.token_ids[i], plain))


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5"])
def test_quantised_caches_under_a_tree(name, context):
    """Rows are quantised one by one, so a tree's are those of plain decoding."""
    target, tree = tiny_target(name, head_dim=32), TREES["bushy"]

    def make_cache():
        return [QuantizedKVCache(32, 8) if hasattr(c, "offset") else c for c in target.make_cache()]

    cache, plain = prefilled(target, context, make_cache), prefilled(target, context, make_cache)
    got, _, pending = verify(target, tree, cache, len(context))
    pending.commit(deepest(tree))
    for i in deepest(tree):
        assert_close(got[i], step(target, tree.token_ids[i], plain))
    for token in (7, 40, 22):
        assert_close(step(target, token, cache), step(target, token, plain))
