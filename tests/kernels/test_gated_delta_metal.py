"""Metal kernels of gated delta layers on the host, against the recurrence in float64 and the plain MLX references:
their errors are the references' own, and bounds, races and barriers are checked as they run."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels import gated_delta as plain
from mlx_ddtree.kernels import gated_delta_metal as metal
from mlx_ddtree.target.rows import TreeRows

from ..metal_host import HostLaunch, InlineKernel, KernelError, missing_compiler
from .test_gated_delta import inputs, tree_of

pytestmark = pytest.mark.skipif(missing_compiler() is not None, reason=missing_compiler() or "")

F32, F16, BF16 = mx.float32, mx.float16, mx.bfloat16
ROUNDING = {F32: 2.0**-23, F16: 2.0**-10, BF16: 2.0**-7}


def float64(x):
    return np.array(x.astype(mx.float32)).astype(np.float64)


def extreme(data, seed=0):
    """Keys that are all alike, gates of 1 and exp(-50), rates of 0 and 1."""
    q, k, v, log_g, beta, state = data
    rng = np.random.default_rng(seed)
    k = mx.broadcast_to(k[:, :1], k.shape)
    gates = rng.choice([0.0, 0.0, 0.0, -50.0], log_g.shape).astype(np.float32)
    return q, k, v, mx.array(gates), mx.array(rng.integers(0, 2, beta.shape)).astype(beta.dtype), state


def recurrence(tree, data):
    """Every node from its parent's state, in float64: outputs (N, Hv, Dv), u (Hv, N, Dv), states."""
    q, k, v, log_g, beta, state = (float64(x)[0] for x in data)
    groups = v.shape[1] // k.shape[1]
    q, k = (np.repeat(x, groups, axis=1) for x in (q, k))
    states, outputs, updates = [], [], []
    for t in range(len(v)):
        before = np.exp(log_g[t])[:, None, None] * (state if t == 0 else states[tree.parents[t]])
        u = beta[t][:, None] * (v[t] - np.einsum("hij,hj->hi", before, k[t]))
        states.append(before + u[:, :, None] * k[t][:, None])
        outputs.append(np.einsum("hij,hj->hi", states[-1], q[t]))
        updates.append(u)
    return np.stack(outputs), np.stack(updates, axis=1), states


def error(got, want):
    return np.abs(float64(got) - want).max() / max(1.0, np.abs(want).max())


def assert_as_good(got, reference, want, rounding):
    """No further from the truth than twice the reference, or than a rounding of the result's type."""
    assert got.shape == reference.shape and got.dtype == reference.dtype
    assert error(got, want) <= 2 * error(reference, want) + 2 * rounding


def check(kind, count, key_heads, heads, dk, dv, dtype, change=None, launch=None, words=None, state_dtype=F32):
    launch = launch or HostLaunch()
    tree = tree_of(kind, count, seed=count)
    data = inputs(count, key_heads, heads, dk, dv, dtype, seed=count)
    data = change(data) if change else data
    data = (*data[:5], data[5].astype(state_dtype))
    rows = TreeRows(tree, 0, count)
    outputs, updates, states = recurrence(tree, data)
    expected, reference = plain.tree_gated_delta(*data, rows.ancestors)
    words = rows.bits.words if words is None else words
    out, delta = metal.tree_gated_delta(*data, words, launch=launch)
    assert_as_good(out[0], expected[0], outputs, ROUNDING[dtype])
    assert_as_good(delta.updates, reference.updates, updates, ROUNDING[F32])
    np.testing.assert_allclose(np.array(delta.log_decay), np.array(reference.log_decay), rtol=1e-6)
    for leaf in {count - 1, int(tree.depths.argmax())}:
        path = mx.array(tree.path_to(leaf))
        (state,), (wanted,) = metal.commit_states([delta], path, launch=launch), plain.commit_states([reference], path)
        assert_as_good(state[0], wanted[0], states[leaf], ROUNDING[state_dtype])
    return launch


TINY, LARGE, MEDIUM = (2, 4, 16, 8, F32), (1, 2, 128, 128, BF16), (1, 3, 64, 64, F16)


@pytest.mark.parametrize("change", [None, extreme])
@pytest.mark.parametrize(
    ("kind", "count", "sizes"),
    [
        *(("chain", 1, TINY), ("star", 2, TINY), ("random", 5, TINY), ("chain", 17, TINY), ("random", 32, TINY)),
        *(("random", 17, LARGE), ("chain", 16, LARGE)),
        *(("random", 33, MEDIUM), ("chain", 64, MEDIUM), ("star", 64, MEDIUM)),
    ],
)
def test_outputs_and_states_are_as_near_the_recurrence_as_the_references(kind, count, sizes, change):
    check(kind, count, *sizes, change=change)


@pytest.mark.slow
@pytest.mark.parametrize("change", [None, extreme])
@pytest.mark.parametrize("kind", ["random", "chain"])
@pytest.mark.parametrize("count", [1, 9, 32, 33, 64, 65, 128])
@pytest.mark.parametrize(
    "sizes",
    [
        *((1, 1, 8, 24, F32), (2, 2, 24, 40, BF16), (1, 2, 128, 64, F32), (2, 6, 64, 128, BF16)),
        *((1, 1, 256, 64, F16), (1, 1, 256, 8, F32), (3, 3, 40, 88, F16)),
    ],
)
def test_over_more_shapes(kind, count, sizes, change):
    check(kind, count, *sizes, change=change)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "asan"])
def test_other_modes_and_a_state_of_16_bits(mode):
    check("random", 33, 1, 2, 64, 32, BF16, launch=HostLaunch(mode), state_dtype=BF16)


@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_the_order_of_threads_changes_no_bit(order):
    tree, data = tree_of("random", 20), inputs(20, 2, 4, 16, 8, F32)
    words = TreeRows(tree, 0, 20).bits.words
    results = [
        metal.tree_gated_delta(*data, words, launch=launch) for launch in (HostLaunch(), HostLaunch("check", order))
    ]
    for a, b in zip(*((out, delta.updates) for out, delta in results), strict=True):
        np.testing.assert_array_equal(np.array(a), np.array(b))


@pytest.mark.parametrize(("row", "column"), [(31, 0), (13, 2), (16, 16), (9, 31)])
def test_one_wrong_bit_of_the_ancestors_shows(row, column):
    """The root forgotten, another branch seen, a node that does not see itself, and one that sees a later one."""
    words = np.array(TreeRows(tree_of("random", 32, seed=32), 0, 32).bits.words)
    words[row, 0] ^= np.uint32(1) << np.uint32(column)
    with pytest.raises(AssertionError):
        check("random", 32, *TINY, words=mx.array(words))


def test_rows_of_padding_change_nothing():
    tree, data = tree_of("random", 9), inputs(12, 2, 4, 16, 8, F32)
    padded, _ = metal.tree_gated_delta(*data, TreeRows(tree, 0, 12).bits.words, launch=HostLaunch())
    alone, _ = plain.tree_gated_delta(*(x[:, :9] for x in data[:5]), data[5], TreeRows(tree, 0, 9).ancestors)
    np.testing.assert_allclose(np.array(padded[:, :9]), np.array(alone), atol=1e-5)


@pytest.mark.parametrize("count", [5, 17, 32])
def test_the_state_is_read_once_for_all_nodes_and_written_once(count):
    launch = check("random", count, *TINY)
    verification, commit = launch.launches[0], launch.last
    state = 4 * 8 * 16 * 4
    assert verification.bytes_read["state"] == state
    assert commit.bytes_read["state_0"] == commit.bytes_written["committed_0"] == state
    assert verification.bytes_written["updates"] == 4 * count * 8 * 4
    assert verification.bytes_written["out"] == 4 * count * 8 * 4


@pytest.mark.parametrize("place", range(3))
def test_no_barrier_can_be_left_out(monkeypatch, place):
    kernel = metal._TREE_GATED_DELTA
    header, body = kernel.text
    barrier = "threadgroup_barrier(mem_flags::mem_threadgroup);"
    parts = header.split(barrier)
    assert len(parts) == 4
    less = barrier.join(parts[: place + 1]) + barrier.join(parts[place + 1 :])
    faulty = InlineKernel(kernel.name, kernel.inputs, kernel.outputs, header=less, body=body)
    monkeypatch.setattr(metal, "_TREE_GATED_DELTA", faulty)
    with pytest.raises(KernelError, match="data race"):
        check("random", 33, *MEDIUM)


@pytest.mark.parametrize(("dk", "dv", "count"), [(12, 8, 4), (16, 12, 4), (264, 8, 4), (16, 8, 129)])
def test_sizes_without_a_kernel_are_refused(dk, dv, count):
    assert not metal.fits(count, dk, dv, F32)
    rows = TreeRows(tree_of("chain", count), 0, count)
    with pytest.raises(ValueError, match=f"{count} nodes with heads of {dk} x {dv}"):
        metal.tree_gated_delta(*inputs(count, 1, 1, dk, dv, F32), rows.bits.words, launch=HostLaunch())


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_heads_of_public_models_have_kernels(dtype):
    for count in (1, 32, 64, 128):
        assert metal.fits(count, 128, 128, dtype)
        groups = metal._simdgroups(metal._capacity(count), 128, 128, dtype)
        assert groups == 8 or count == 128


@pytest.mark.parametrize("kind", ["random", "chain", "star"])
@pytest.mark.parametrize(
    ("count", "channels", "key_dim", "dtype"), [(1, 96, 32, F32), (9, 96, 32, F32), (64, 200, 64, BF16)]
)
def test_the_convolution_is_the_references(kind, count, channels, key_dim, dtype):
    """Every row is read once, whatever the number of nodes that have it among their last tokens."""
    rows, before = (mx.random.normal((1, n, channels)).astype(dtype) for n in (count, 3))
    weight = mx.random.normal((channels, 4, 1)).astype(dtype)
    table = TreeRows(tree_of(kind, count), 0, count).conv_table(4)
    launch = HostLaunch()
    got = metal.tree_conv_qkv(rows, before, weight, table, key_dim, launch=launch)
    exact = plain.tree_conv_qkv(*(x.astype(F32) for x in (rows, before, weight)), table, key_dim)
    for x, want in zip(got, exact, strict=True):
        assert x.shape == want.shape and x.dtype == dtype
        np.testing.assert_allclose(float64(x), float64(want), rtol=ROUNDING[dtype], atol=1e-6)
    assert launch.last.bytes_read["rows"] == rows.nbytes
    assert launch.last.bytes_read["before"] == before.nbytes


def test_a_wrong_place_in_the_table_shows():
    rows, before, weight = mx.random.normal((1, 9, 96)), mx.random.normal((1, 3, 96)), mx.random.normal((96, 4, 1))
    table = TreeRows(tree_of("random", 9), 0, 9).conv_table(4)
    want = plain.tree_conv_qkv(rows, before, weight, table, 32)
    wrong = np.array(table)
    wrong[8, 0] += 1
    got = metal.tree_conv_qkv(rows, before, weight, mx.array(wrong), 32, launch=HostLaunch())
    assert all(np.abs(float64(x) - float64(y)).max() > 1e-2 for x, y in zip(got, want, strict=True))


@pytest.mark.slow
def test_undefined_behaviour_of_small_kernels():
    """Shifts, overflows and what AddressSanitizer sees; the recurrence and the state have their own such test."""
    launch, tree = HostLaunch("asan"), tree_of("random", 33)
    rows, before, weight = mx.random.normal((1, 33, 96)), mx.random.normal((1, 3, 96)), mx.random.normal((96, 4, 1))
    table, path = TreeRows(tree, 0, 33).conv_table(4), mx.array([0, 3, 9])
    got = metal.tree_conv_qkv(rows, before, weight, table, 32, launch=launch)
    for x, want in zip(got, plain.tree_conv_qkv(rows, before, weight, table, 32), strict=True):
        np.testing.assert_allclose(np.array(x), np.array(want), atol=1e-5)
    (window,), (want,) = (
        f([before], [rows], path) for f in (partial(metal.commit_windows, launch=launch), plain.commit_windows)
    )
    np.testing.assert_array_equal(np.array(window), np.array(want))


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_windows_after_a_path_are_the_references(length):
    windows, rows = ([mx.random.normal((1, n, 300)) for _ in range(2)] for n in (3, 9))
    path = mx.array(np.sort(np.random.default_rng(length).permutation(9)[:length]).astype(np.int32))
    got = metal.commit_windows(windows, rows, path, launch=HostLaunch())
    for window, x, y, z in zip(windows, rows, got, plain.commit_windows(windows, rows, path), strict=True):
        want = mx.concatenate([window, mx.take(x, path, axis=1)], axis=1)[:, -3:]
        np.testing.assert_array_equal(np.array(y), np.array(want))
        np.testing.assert_array_equal(np.array(z), np.array(want))


@pytest.mark.parametrize(("layers", "launches"), [(2, 1), pytest.param(6, 2, marks=pytest.mark.slow)])
def test_layers_share_a_launch_and_keep_their_own_states(layers, launches):
    tree = tree_of("random", 21)
    ancestors, path = TreeRows(tree, 0, 21).ancestors, mx.array(tree.path_to(20))
    deltas = [plain.tree_gated_delta(*inputs(21, 2, 4, 16, 8, F32, seed=i), ancestors)[1] for i in range(layers)]
    launch = HostLaunch()
    states = metal.commit_states(deltas, path, launch=launch)
    for got, want in zip(states, plain.commit_states(deltas, path), strict=True):
        np.testing.assert_allclose(np.array(got), np.array(want), atol=1e-6)
    assert len(launch.launches) == launches
