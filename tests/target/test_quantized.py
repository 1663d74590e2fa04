"""A quantised target whose products `verify_qmm` computes verifies a tree to the same logits and choices."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.nn.layers.distributed import shard_linear
from mlx.utils import tree_flatten

from mlx_ddtree.kernels.choice import NO_KERNELS, KernelSet, always
from mlx_ddtree.kernels.head import head_top_k
from mlx_ddtree.kernels.quantized import SharedInput, shared_matmul, shared_qmm
from mlx_ddtree.target.forward import Forward
from mlx_ddtree.target.quantized import (
    KernelAllToSharded,
    KernelEmbedding,
    KernelLinear,
    KernelShardedToAll,
    adapt_quantized,
    head_weights,
)

from ..helpers import small_target
from ..metal_host import HostLaunch, missing_compiler
from .test_families import TREES, prefilled, verify

CONTEXT = [3, 14, 15, 9, 26]
needs_clang = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")
HOST = partial(shared_qmm, launch=HostLaunch(mode="check"))


@pytest.fixture(scope="module")
def target():
    return small_target(bits=4, layers=2)


@needs_clang
def test_the_same_logits_choices_and_features(target):
    target.taps = (0, 1)
    cache = prefilled(target, CONTEXT)
    mark = target.mark(cache)
    want, features, _ = verify(target, TREES["star"], cache, len(CONTEXT))
    target.rewind(cache, mark)
    target.kernels = always(KernelSet(product=HOST))
    got, host_features, _ = verify(target, TREES["star"], cache, len(CONTEXT))
    target.kernels = NO_KERNELS
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(host_features, features, atol=1e-5 * np.abs(features).max())
    np.testing.assert_array_equal(got.argmax(-1), want.argmax(-1))


def test_who_computes(target):
    """Trees of 2 to 32 rows are the kernel's, all products of them; other rows, and prompts and plain decoding of any
    size, the module's own."""
    asked = []

    def product(x, weights):
        asked.extend([x.size // x.shape[-1]] * len(weights.columns))
        return shared_matmul(x, weights)

    layers = sum(isinstance(m, KernelLinear | KernelEmbedding) for m in target.model.modules())
    assert layers == 7 * 2 + 1  # attention and MLP of two layers, and the tied head
    for rows in (1, 2, 32, 33):
        asked.clear()
        kernels = KernelSet(product=product)
        hidden, _ = target.run(mx.array([[1] * rows]), target.make_cache(), kernels=kernels)
        with target.current.running(kernels=kernels):
            target.unembed(hidden)
        assert asked == ([rows] * layers if 2 <= rows <= 32 else [])
    asked.clear()
    target.kernels = always(KernelSet(product=product))
    cache = prefilled(target, CONTEXT)
    assert not asked
    nodes = len(TREES["star"])
    verify(target, TREES["star"], cache, len(CONTEXT))
    assert asked == [nodes] * 14
    target.unembed_tree(mx.zeros((nodes, target.hidden_size)))
    target.kernels = NO_KERNELS
    assert asked == [nodes] * 15


@pytest.mark.parametrize("bias", [False, True])
def test_split_layers_ask_too(bias):
    """Their part by the kernel, the sum over ranks as ever; here over one rank."""
    asked, product = recording()
    whole = nn.Linear(64, 96, bias).to_quantized(32, 4)
    group, x = mx.distributed.init(), mx.random.normal((1, 5, 64))
    for sharding, kind in (("all-to-sharded", KernelAllToSharded), ("sharded-to-all", KernelShardedToAll)):
        model = nn.Sequential(shard_linear(whole, sharding, group=group))
        forward = Forward()
        want = model(x)
        adapt_quantized(model, forward)
        assert type(model.layers[0]) is kind
        np.testing.assert_array_equal(model(x), want)
        with forward.running(kernels=KernelSet(product=product)):
            np.testing.assert_allclose(model(x), want, atol=1e-5)
    assert len(asked) == 2


def test_parameters_keep_their_names_and_other_modes_their_classes():
    four, mxfp4 = (nn.Linear(64, 64).to_quantized(32, 4, mode) for mode in ("affine", "mxfp4"))
    model = nn.Sequential(nn.Linear(64, 64), four, mxfp4)
    names = [name for name, _ in tree_flatten(model.parameters())]
    adapt_quantized(model, Forward())
    assert [type(m) for m in model.layers] == [nn.Linear, KernelLinear, nn.QuantizedLinear]
    assert [name for name, _ in tree_flatten(model.parameters())] == names
    assert isinstance(four, nn.QuantizedLinear)


@needs_clang
def test_bias_and_other_types():
    """A layer's bias is added; rows in another type than the scales' are left to MLX."""
    forward = Forward(product=HOST)
    layer = nn.Linear(64, 40).to_quantized(group_size=32, bits=4)
    layer.bias = mx.random.normal((40,))
    x = mx.random.normal((1, 3, 64))
    want, half = layer(x), layer(x.astype(mx.float16))
    adapt_quantized(layer, forward)
    np.testing.assert_allclose(layer(x), want, atol=1e-5)
    np.testing.assert_array_equal(layer(x.astype(mx.float16)), half)


@needs_clang
@pytest.mark.parametrize(("bits", "tied"), [(4, True), (None, False)])
def test_the_head_gives_the_targets_choices(bits, tied):
    """The fused head's best token and margin at every node are those of the target's own logits."""
    target = small_target(bits=bits, tied=tied, layers=1)
    weights = head_weights(target.text.model.embed_tokens if tied else target.text.lm_head)
    hidden = target.forward(mx.array([CONTEXT]), target.make_cache())[0][0]
    logits = np.sort(np.array(target.unembed(hidden)), axis=-1)
    got = head_top_k(hidden, weights, 2, launch=HostLaunch(mode="check"))
    np.testing.assert_array_equal(got.token_ids[:, 0], mx.argmax(target.unembed(hidden), axis=-1))
    np.testing.assert_allclose(got.logits, logits[:, :-3:-1], atol=1e-4)


def test_heads_that_the_kernel_does_not_have():
    assert head_weights(nn.Linear(64, 8)) is None  # it has a bias
    assert head_weights(nn.Linear(48, 8, bias=False)) is None  # not a whole number of runs of 32
    assert head_weights(nn.Linear(64, 8, bias=False).to_quantized(mode="mxfp4", group_size=32, bits=4)) is None


def recording():
    """What products were asked for, by name; and the product that notes it."""
    asked = []

    def product(x, weights):
        asked.append(weights.name)
        return shared_matmul(x, weights)

    return asked, product


def attention_weights(columns=(64, 32, 32), depth=64):
    model = nn.Module()
    for name, n in zip(("q_proj", "k_proj", "v_proj"), columns, strict=True):
        model[name] = nn.Linear(depth, n, bias=False).to_quantized(32, 4)
    forward = Forward()
    adapt_quantized(model, forward)
    return model, forward


def test_layers_of_one_input_are_one_call():
    """Results are each layer's own, in whatever order they are asked for, and of each input anew."""
    asked, product = recording()
    model, forward = attention_weights()
    for order in ("qkv", "vqk", "kvq"):
        x = mx.random.normal((1, 5, 64))
        want = {name: model[f"{name}_proj"](x) for name in order}
        with forward.running(kernels=KernelSet(product=product)):
            for name in order:
                np.testing.assert_array_equal(model[f"{name}_proj"](x), want[name])
            np.testing.assert_array_equal(model.q_proj(x), want["q"])  # once more: computed anew
            model.k_proj(x), model.v_proj(x)
    assert asked == ["64+32+32x64"] * 6


def test_layers_that_are_left_out_again_and_again_are_left_alone():
    """A model that shares keys between layers never asks some of them."""
    asked, product = recording()
    model, forward = attention_weights()
    with forward.running(kernels=KernelSet(product=product)):
        for _ in range(6):
            model.q_proj(mx.random.normal((1, 5, 64)))
    assert asked == ["64+32+32x64"] * 3 + ["64x64"] * 3


def test_layers_of_other_forms_are_not_together():
    model = nn.Module()
    model.gate_proj = nn.Linear(64, 32).to_quantized(32, 4)
    model.up_proj = nn.Linear(64, 32).to_quantized(32, 8)
    adapt_quantized(model, Forward())
    assert model.gate_proj.together is not model.up_proj.together


def test_a_weight_that_is_replaced_is_the_one_that_multiplies():
    model, forward = attention_weights()
    x = mx.random.normal((1, 5, 64))
    with forward.running(kernels=KernelSet(product=shared_matmul)):
        for layer in (model.q_proj, model.k_proj, model.v_proj):
            layer(x)
        other = nn.Linear(64, 32, bias=False).to_quantized(32, 4)
        model.v_proj.update(other.parameters())
        for layer in (model.q_proj, model.k_proj):
            layer(x)
        np.testing.assert_array_equal(model.v_proj(x), other(x))


@needs_clang
@pytest.mark.parametrize("columns", [(64,), (40, 16), (16, 48, 33), (16, 8, 8, 64)])
@pytest.mark.parametrize("rows", [3, 9])
def test_matrices_of_one_launch_are_the_same_as_alone(columns, rows):
    """Each within rounding of MLX's product; columns that end within a tile, and tiles of every matrix."""
    packed = [mx.quantize(mx.random.normal((n, 96)), 32, 4) for n in columns]
    x, launch = mx.random.normal((rows, 96)), HostLaunch(mode="check")
    weights = SharedInput(packed, 32, 4)
    for _ in range(2):
        got = shared_qmm(x, weights, launch=launch)
    assert len(launch.launches) == 2
    for y, want in zip(got, shared_matmul(x, weights), strict=True):
        np.testing.assert_allclose(y, want, atol=1e-4)
