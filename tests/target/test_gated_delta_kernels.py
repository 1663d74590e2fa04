"""Whole targets verify and commit by the Metal kernels, run on the host, as they do by plain MLX."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.cache import QuantizedKVCache

from mlx_ddtree.kernels.choice import NO_KERNELS, KernelSet, always
from mlx_ddtree.kernels.gated_delta import DeltaKernels
from mlx_ddtree.kernels.gated_delta_metal import delta_kernels
from mlx_ddtree.kernels.gather_rows import launch_gather_rows
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tuning.measure import profile_of

from ..decoding.test_lossless import PROMPT, our_tokens, stock_tokens
from ..families import tiny_pair, tiny_target
from ..kernels.test_gated_delta import tree_of
from ..metal_host import HostLaunch, missing_compiler

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")


def rounds(target, trees, context=(5, 9, 2, 40, 7)):
    """Logits of every tree's rows, each tree behind what the one before has committed; then the caches."""
    cache, length, logits = target.make_cache(), len(context), []
    target.forward(mx.array([list(context)]), cache)
    for tree in trees:
        tokens = mx.arange(len(tree))[None] % 64
        hidden, _, pending = target.forward_rows(tokens, TreeRows(tree, length, len(tree)), cache)
        logits.append(np.array(target.unembed(hidden)))
        path = tree.path_to(int(tree.depths.argmax()))
        pending.commit(path)
        length += len(path)
    return logits, cache


def stored(cache):
    for layer in cache:
        yield from layer.cache if hasattr(layer, "cache") else layer.keys_and_values()


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_next"])
def test_logits_and_caches_are_those_of_plain_mlx(family):
    trees = [tree_of("random", 9, 2), tree_of("chain", 4), tree_of("random", 9, 1), tree_of("random", 17, 3)]
    target = tiny_target(family)
    plain, plain_cache = rounds(target, trees)
    launch = HostLaunch()
    gather = partial(launch_gather_rows, launch=launch)
    target.kernels = always(KernelSet(delta=delta_kernels(launch), gather_rows=gather))
    ours, cache = rounds(target, trees)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
    for x, y in zip(stored(cache), stored(plain_cache), strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_allclose(np.array(x), np.array(y), atol=1e-4)
    # Two layers of each kind: two launches a gated delta layer, one for all their states, one for all windows,
    # and one for all keys and values unless the path's rows are in place (the chain) or neighbours (9 nodes, seed 1).
    names = [x.kernel for x in launch.launches]
    assert {name: names.count(name) for name in set(names)} == {
        **dict.fromkeys(("tree_conv", "tree_gated_delta"), 2 * len(trees)),
        **dict.fromkeys(("commit_delta", "commit_window"), len(trees)),
        "gather_rows": 2,
    }


@pytest.mark.parametrize("family", ["qwen3_5", pytest.param("qwen3_next", marks=pytest.mark.slow)])
def test_a_text_by_the_kernels_is_mlx_lms(family):
    pair, launch = tiny_pair(family), HostLaunch("fast")
    profile_of(pair)  # would choose kernels at the first round
    gather = partial(launch_gather_rows, launch=launch)
    pair.target.kernels = always(KernelSet(delta=delta_kernels(launch), gather_rows=gather))
    assert our_tokens(pair, PROMPT, 24, tree_budget=9) == stock_tokens(pair, PROMPT, 24)
    assert {x.kernel for x in launch.launches} >= {"tree_conv", "tree_gated_delta", "commit_delta", "commit_window"}


def test_trees_that_are_too_large_for_the_kernels_take_the_references():
    target, launch = tiny_target("qwen3_5"), HostLaunch()
    target.kernels = always(KernelSet(delta=delta_kernels(launch)))
    trees = [tree_of("random", 129, 3)]
    ours, _ = rounds(target, trees)
    assert not launch.launches
    target.kernels = NO_KERNELS
    np.testing.assert_array_equal(ours[0], rounds(target, trees)[0][0])


def test_a_layer_that_computes_something_else_shows():
    """The comparison above sees a recurrence whose rates are off by a thousandth."""
    trees = [tree_of("random", 9), tree_of("chain", 4)]
    target = tiny_target("qwen3_5")
    plain, _ = rounds(target, trees)
    right = DeltaKernels()

    def wrong(queries, keys, values, log_gates, beta, state, ancestors):
        return right.tree_gated_delta(queries, keys, values, log_gates, beta * 1.001, state, ancestors)

    target.kernels = always(KernelSet(delta=DeltaKernels(tree_gated_delta=wrong)))
    ours, _ = rounds(target, trees)
    assert np.abs(ours[1] - plain[1]).max() > 1e-4 * np.abs(plain[1]).max()


@pytest.mark.slow
def test_rings_and_quantised_caches_take_gathered_rows():
    trees = [tree_of("random", 9, 2), tree_of("random", 17, 3)]
    launch = HostLaunch()
    for family, bits in (("gpt_oss", None), ("qwen3", 8)):
        target = tiny_target(family, **({"head_dim": 32} if bits else {}))
        if bits:
            target.make_cache = lambda target=target: [QuantizedKVCache(32, 8) for _ in target.layers]
        plain, plain_cache = rounds(target, trees)
        target.kernels = always(KernelSet(gather_rows=partial(launch_gather_rows, launch=launch)))
        ours, cache = rounds(target, trees)
        np.testing.assert_array_equal(np.concatenate(ours, 1), np.concatenate(plain, 1))
        for layer, other in zip(cache, plain_cache, strict=True):
            assert layer.offset == other.offset
    assert {x.kernel for x in launch.launches} == {"gather_rows"}
