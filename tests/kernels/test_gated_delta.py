"""The tree's closed form equals mlx-lm's recurrence along every path, over shapes and dtypes."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.gated_delta import gated_delta_ops

from mlx_ddtree.kernels.gated_delta import commit_delta, tree_conv, tree_gated_delta, unit_lower_inverse
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree


def tree_of(kind, count, seed=0):
    rng = np.random.default_rng(seed)
    parents = {
        "chain": np.arange(count) - 1,
        "star": np.minimum(np.arange(count) - 1, 0),
        "random": np.array([-1, *(int(rng.integers(max(0, i - 5), i)) for i in range(1, count))]),
    }[kind].astype(np.int32)
    depths = np.zeros(count, np.int32)
    for i in range(1, count):
        depths[i] = depths[parents[i]] + 1
    return DraftTree(np.zeros(count, np.int32), parents, depths, np.zeros(count, np.float32))


def inputs(count, key_heads, value_heads, dk, dv, dtype, seed=0, sharp=1.0):
    """Normalised keys and queries; gates from barely to strongly forgetting."""
    keys = mx.random.split(mx.random.key(seed), 6)
    q, k = (mx.random.normal((1, count, key_heads, dk), key=key) for key in keys[:2])
    q, k = (x / mx.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    v = mx.random.normal((1, count, value_heads, dv), key=keys[2])
    log_g = -mx.exp(sharp * mx.random.normal((1, count, value_heads), key=keys[3]) - 2)
    beta = mx.sigmoid(2 * mx.random.normal((1, count, value_heads), key=keys[4]))
    state = mx.random.normal((1, value_heads, dv, dk), key=keys[5])
    return *(x.astype(dtype) for x in (q, k, v)), log_g, beta.astype(dtype), state


def along(path, q, k, v, log_g, beta, state):
    nodes = mx.array(path)
    q, k, v, log_g, beta = (mx.take(x, nodes, axis=1) for x in (q, k, v, log_g, beta))
    return gated_delta_ops(q, k, v, mx.exp(log_g), beta, state)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize(("key_heads", "value_heads"), [(1, 1), (2, 6)])
@pytest.mark.parametrize(
    ("kind", "count", "dk", "dv"),
    [("chain", 1, 8, 8), ("star", 2, 16, 24), ("random", 13, 128, 64), ("chain", 33, 32, 8), ("random", 64, 16, 16)],
)
def test_outputs_and_committed_states_are_those_of_the_recurrence(kind, count, dk, dv, key_heads, value_heads, dtype):
    tree = tree_of(kind, count)
    data = inputs(count, key_heads, value_heads, dk, dv, dtype)
    out, delta = tree_gated_delta(*data, TreeRows(tree, 0, count).ancestors)
    assert out.dtype == dtype
    tolerance = 1e-4 if dtype == mx.float32 else 3e-2
    for leaf in {count - 1, int(tree.depths.argmax()), count // 2}:
        path = tree.path_to(leaf)
        want, state = along(path, *data)
        got = mx.take(out, mx.array(path), axis=1)
        np.testing.assert_allclose(
            np.array(got.astype(mx.float32)), np.array(want.astype(mx.float32)), atol=tolerance * 4
        )
        committed = commit_delta(delta, mx.array(path))
        assert committed.dtype == mx.float32
        np.testing.assert_allclose(np.array(committed), np.array(state.astype(mx.float32)), atol=tolerance * 4)


def test_padding_and_other_branches_change_nothing():
    tree = tree_of("random", 9)
    data = inputs(12, 2, 4, 16, 8, mx.float32)
    padded, _ = tree_gated_delta(*data, TreeRows(tree, 0, 12).ancestors)
    alone, _ = tree_gated_delta(*(x[:, :9] for x in data[:5]), data[5], TreeRows(tree, 0, 9).ancestors)
    np.testing.assert_allclose(np.array(padded[:, :9]), np.array(alone), atol=1e-5)


def test_strong_forgetting_neither_overflows_nor_gives_nan():
    """Gates down to exp(-200) a step: differences between branches would overflow if they were formed."""
    q, k, v, log_g, beta, state = inputs(32, 1, 2, 16, 16, mx.float32)
    tree = tree_of("random", 32)
    out, delta = tree_gated_delta(q, k, v, log_g * 500, beta, state, TreeRows(tree, 0, 32).ancestors)
    path = tree.path_to(31)
    want, after = along(path, q, k, v, log_g * 500, beta, state)
    np.testing.assert_allclose(np.array(mx.take(out, mx.array(path), axis=1)), np.array(want), atol=1e-4)
    np.testing.assert_allclose(np.array(commit_delta(delta, mx.array(path))), np.array(after), atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 31, 33, 128])
def test_the_inverse_is_stable_where_powers_would_cancel(count):
    """Equal keys, beta 1, no forgetting: powers of the system reach 1e37, its inverse is bidiagonal."""
    strict = mx.tril(mx.ones((2, count, count)), k=-1)
    want = np.eye(count) - np.eye(count, k=-1)
    np.testing.assert_allclose(np.array(unit_lower_inverse(strict)), np.stack([want] * 2), atol=1e-5)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_inverse_inverts(count, seed):
    strict = mx.tril(mx.random.uniform(-1, 1, (count, count), key=mx.random.key(seed)), k=-1) / count**0.5
    product = np.array(unit_lower_inverse(strict)) @ (np.eye(count) + np.array(strict))
    np.testing.assert_allclose(product, np.eye(count), atol=1e-4)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("kernel", [2, 4])
def test_the_convolution_of_a_node_is_that_of_its_path(kernel, dtype):
    channels, tree = 12, tree_of("random", 17)
    conv = nn.Conv1d(channels, channels, kernel, groups=channels, bias=False)
    conv.weight = conv.weight.astype(dtype)
    rows = mx.random.normal((1, 17, channels)).astype(dtype)
    before = mx.random.normal((1, kernel - 1, channels)).astype(dtype)
    got = tree_conv(rows, before, conv.weight, TreeRows(tree, 0, 17).conv_table(kernel))
    assert got.dtype == dtype
    for node in range(17):
        path = mx.concatenate([before, mx.take(rows, mx.array(tree.path_to(node)), axis=1)], axis=1)
        want = conv(path)[0, -1].astype(mx.float32)
        np.testing.assert_allclose(
            np.array(got[0, node].astype(mx.float32)), np.array(want), atol=1e-5 if dtype == mx.float32 else 2e-2
        )
