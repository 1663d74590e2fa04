"""Every row of a tree attends to the context and its own path, as the mask of TreeRows says it, and keys and values
are read once."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.kernels.attention_plan import SIMDGROUPS, plan_launch, threadgroups
from mlx_ddtree.kernels.tree_attention import supports, tree_attention, tree_attention_ops, tree_mask
from mlx_ddtree.target.rows import TreeRows

from ..metal_host import HostLaunch, missing_compiler
from .test_gated_delta import tree_of

needs_compiler = pytest.mark.skipif(missing_compiler() is not None, reason=str(missing_compiler()))
# Weights are rounded to the dtype before they multiply values, outputs after.
TOLERANCE = {mx.float32: 2e-6, mx.float16: 2e-3, mx.bfloat16: 1.5e-2}


def rows_of(kind, nodes, padding=0):
    return TreeRows(tree_of(kind, nodes), 0, nodes + padding)


def random_arrays(rows, heads, groups, dims, context, dtype, seed=0):
    """Queries in the layout that TreeRope leaves; keys and values as slices of a cache with room behind."""
    keys = mx.random.split(mx.random.key(seed), 3)
    queries = mx.random.normal((rows, heads * groups, 1, dims[0]), key=keys[0]).astype(dtype).transpose(2, 1, 0, 3)
    caches = (
        mx.random.normal((1, heads, context + rows + 7, dim), key=key) for dim, key in zip(dims, keys[1:], strict=True)
    )
    return queries, *(x.astype(dtype)[:, :, : context + rows] for x in caches)


def by_numpy(queries, keys, values, mask, scale, sinks=None):
    """In float64, one row and head at a time."""
    q, k, v = (np.array(x.astype(mx.float32), np.float64)[0] for x in (queries, keys, values))
    out = np.empty((*q.shape[:2], v.shape[-1]))
    for head in range(len(q)):
        of = head // (len(q) // len(k))
        for row in range(q.shape[1]):
            logits = k[of][mask[row]] @ q[head, row] * scale
            others = [] if sinks is None else [float(sinks[head])]
            weights = np.exp(np.append(logits, others) - max([*logits, *others]))
            out[head, row] = weights[: len(logits)] @ v[of][mask[row]] / weights.sum()
    return out


def assert_close(got, want, tolerance):
    got = np.array(got.astype(mx.float32))[0]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, want, atol=tolerance * max(1.0, np.abs(want).max()))


def check(
    kind, nodes, *, padding=0, heads=2, groups=2, dims=(64, 64), context=33, dtype=mx.float16, how=None, launch=None
):
    """The kernel (in check mode, unless told otherwise) and the reference against numpy."""
    rows, how = rows_of(kind, nodes, padding), {"scale": dims[0] ** -0.5, **(how or {})}
    arrays = random_arrays(nodes + padding, heads, groups, dims, context, dtype)
    mask = np.array(rows.mask(context, how.get("window"), how.get("keep", 0)))
    want = by_numpy(*arrays, mask, how["scale"], how.get("sinks"))
    launch = launch or HostLaunch()
    got = tree_attention(*arrays, rows.bits, context=context, **how, launch=launch)
    assert got.dtype == dtype and got.shape == (1, heads * groups, nodes + padding, dims[1])
    assert_close(got, want, TOLERANCE[dtype])
    single = [x.astype(mx.float32) for x in arrays]
    assert_close(tree_attention_ops(*single, rows.bits, context=context, **how), want, 2e-6)
    return launch.launches


@given(
    nodes=st.integers(1, 70), padding=st.integers(0, 3), context=st.integers(0, 40), seed=st.integers(0, 99),
    window=st.none() | st.integers(1, 50), keep=st.integers(0, 4),
)  # fmt: skip
@settings(max_examples=60)
def test_the_bits_say_what_the_mask_says(nodes, padding, context, seed, window, keep):
    window = window and window + keep
    rows = TreeRows(tree_of("random", nodes, seed), 0, nodes + padding)
    got = tree_mask(rows.bits, nodes + padding, context, window, keep)
    np.testing.assert_array_equal(np.array(got), np.array(rows.mask(context, window, keep)))


@given(
    nodes=st.integers(1, 40), context=st.integers(0, 20), seed=st.integers(0, 99), window=st.none() | st.integers(1, 30)
)
@settings(max_examples=15)
def test_the_reference_is_attention_along_each_path(nodes, context, seed, window):
    rows = TreeRows(tree_of("random", nodes, seed), 0, nodes)
    arrays = random_arrays(nodes, 1, 2, (16, 16), context, mx.float32, seed)
    want = by_numpy(*arrays, np.array(rows.mask(context, window)), 0.25)
    assert_close(tree_attention_ops(*arrays, rows.bits, context=context, scale=0.25, window=window), want, 2e-6)


# Few compilations: template values are dtype, head sizes, blocks, key groups and whether there is a window.
@needs_compiler
@pytest.mark.parametrize("context", [0, 1, 31, 32, 33, 150])
@pytest.mark.parametrize(("kind", "nodes", "padding"), [("chain", 9, 0), ("star", 10, 6), ("random", 14, 0)])
def test_contexts_of_odd_lengths(kind, nodes, padding, context):
    check(kind, nodes, padding=padding, groups=1, context=context)


@needs_compiler
@pytest.mark.parametrize("groups", [1, 3, 4, 8])
def test_groups_of_query_heads(groups):
    check("random", 9, groups=groups, context=70)


@needs_compiler
@pytest.mark.parametrize(("nodes", "groups"), [(1, 1), (1, 8), (5, 3), (33, 4), (64, 1), (70, 4)])
def test_any_number_of_rows(nodes, groups):
    """One row; some; more than a word of bits; more than a threadgroup's simdgroups (several blocks each)."""
    launches = check("random", nodes, groups=groups, context=40)
    name = "few_rows_attention" if nodes * groups < 8 else "tree_attention"
    assert [launched.kernel for launched in launches] == [name, "merge_attention"]


@needs_compiler
@pytest.mark.parametrize(("nodes", "padding"), [(1, 0), (3, 1), (5, 2)])
def test_few_rows(nodes, padding):
    launches = check("random", nodes, padding=padding, heads=27, groups=1, context=333)
    assert launches[0].kernel == "few_rows_attention"
    assert launches[0].grid[0] < 8 * 32 * 4, "ranges so long that simdgroups come back"


@needs_compiler
@pytest.mark.parametrize(
    ("dims", "dtype"), [((256, 256), mx.bfloat16), ((192, 128), mx.float16), ((80, 96), mx.float32)]
)
def test_head_sizes_and_dtypes(dims, dtype):
    check("random", 33, dims=dims, dtype=dtype, groups=1, context=45)


@needs_compiler
@pytest.mark.parametrize("context", [0, 5, 90])
@pytest.mark.parametrize(("window", "keep"), [(1, 0), (12, 0), (12, 4), (200, 3)])
def test_windows_and_sinks(window, keep, context):
    """Narrower than the tree is deep, and wider than everything; what nobody sees is not read."""
    how = {"window": window, "keep": keep, "sinks": mx.array([0.5, -3.0, 4.0, 0.0])}
    launches = check("random", 20, padding=4, context=context, how=how)
    inside = min(keep, context) + min(context - min(keep, context), window - keep - 1) + 24
    assert launches[0].bytes_read["keys"] == 2 * 64 * 2 * inside
    few = check("chain", 3, groups=1, context=context, how=how | {"sinks": mx.array([0.5, -1.0])})
    assert few[0].kernel == "few_rows_attention"


@needs_compiler
def test_large_logits_and_sinks_neither_overflow_nor_vanish():
    check("random", 9, context=40, how={"scale": 30.0, "sinks": mx.array([200.0, -200.0, 0.0, 1e4])})


@needs_compiler
@pytest.mark.parametrize("nodes", [3, 12])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (8, 64)])
def test_quantised_keys_and_values(bits, group_size, nodes):
    """As QuantizedKVCache holds them, sliced; also fewer rows than a matrix has."""
    rows = rows_of("random", nodes)
    queries, *caches = random_arrays(nodes, 2, 2, (64, 128), 50, mx.float16)
    packed = [
        tuple(p[:, :, : 50 + nodes] for p in mx.quantize(mx.concatenate([x, x], axis=2), group_size, bits))
        for x in caches
    ]
    assert supports(queries, *packed)
    keys, values = (mx.dequantize(*p, group_size=group_size, bits=bits) for p in packed)
    want = by_numpy(queries, keys, values, np.array(rows.mask(50)), 0.125)
    how = {"context": 50, "scale": 0.125}
    launch = HostLaunch()
    assert_close(tree_attention(queries, *packed, rows.bits, **how, launch=launch), want, 3e-3)
    assert_close(tree_attention_ops(queries, *packed, rows.bits, **how), want, 5e-3)
    assert launch.launches[0].bytes_read["keys"] == packed[0][0].nbytes


@needs_compiler
@pytest.mark.parametrize("nodes", [5, 40])
def test_a_wrong_bit_is_noticed(nodes):
    """Each flipped bit changes the row that it belongs to by more than the tolerance, and no other row."""
    rows = rows_of("random", nodes)
    arrays = random_arrays(nodes, 1, 1, (64, 64), 20, mx.float16)
    launch = HostLaunch("fast")
    words = np.array(rows.bits.words)
    right = tree_attention(*arrays, rows.bits, context=20, scale=0.125, launch=launch)
    for row, other in [(0, 1), (4, 2), (nodes - 1, 0), (nodes - 2, nodes - 1)]:
        wrong = words.copy()
        wrong[row, other // 32] ^= np.uint32(1 << (other % 32))
        flipped = rows.bits._replace(words=mx.array(wrong))
        got = tree_attention(*arrays, flipped, context=20, scale=0.125, launch=launch)
        change = np.abs(np.array((got - right).astype(mx.float32)))[0, 0].max(axis=-1)
        assert change[row] > 2 * TOLERANCE[mx.float16]
        assert not np.delete(change, row).any()


@needs_compiler
@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_the_order_of_threads_changes_nothing(order):
    arrays, rows = random_arrays(9, 2, 2, (64, 64), 200, mx.float16), rows_of("random", 9)
    results = [
        tree_attention(*arrays, rows.bits, context=200, scale=0.125, launch=HostLaunch(order=o))
        for o in ("forward", order)
    ]
    assert mx.array_equal(*results)


@needs_compiler
@pytest.mark.parametrize(("nodes", "groups"), [(4, 1), (16, 4)])
def test_keys_and_values_are_read_once(nodes, groups):
    """For all nodes and query heads together, whatever the cache's capacity."""
    read = check("random", nodes, groups=groups, context=500)[0].bytes_read
    assert read["keys"] == read["values"] == 2 * (500 + nodes) * 64 * 2


@given(
    rows=st.integers(1, 1024),
    heads=st.integers(1, 32),
    length=st.integers(1, 70000),
    dim=st.sampled_from([64, 80, 128, 192, 256]),
    wanted=st.sampled_from([40, 80, 160]),
)
def test_plans_cover_rows_and_keys(rows, heads, length, dim, wanted):
    """All of them, by threadgroups that exist, within their registers and with few partial results."""
    plan = plan_launch(rows, heads, length, dim, 2, wanted)
    assert plan.split * (plan.splits - 1) < length <= plan.split * plan.splits
    assert plan.splits == 1 or plan.splits * heads <= wanted
    if not plan.few:
        held = plan.simdgroups // plan.key_groups * plan.blocks * 8
        assert held * (plan.row_blocks - 1) < rows <= held * plan.row_blocks
        assert plan.simdgroups <= SIMDGROUPS and plan.blocks * dim <= 256
        assert plan.splits == 1 or plan.split >= 2 * held
        assert plan.row_blocks == 1 or plan.row_blocks < rows * dim / (SIMDGROUPS * 8 * 256) * 2 + 1


def test_larger_machines_get_more_threadgroups():
    assert [threadgroups(f"applegpu_g15{letter}") for letter in "gsd"] == [40, 80, 160]
    assert threadgroups("x86_64") == 80


@pytest.mark.parametrize("dims", [(64, 64), (72, 64), (512, 512)])
@pytest.mark.parametrize("dtype", [mx.float16, mx.int32])
def test_what_is_supported(dims, dtype):
    arrays = [mx.zeros((1, 2, 4, dim)).astype(dtype) for dim in (dims[0], *dims)]
    assert supports(*arrays) == (dims == (64, 64) and dtype == mx.float16)
    assert not supports(arrays[0], *(x.astype(mx.float32) for x in arrays[1:]))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("dim", [64, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("window", [None, 40])
def test_all_head_sizes_and_dtypes(dim, dtype, window):
    """With one, two and many groups of rows, and few rows."""
    for nodes, groups, context in [(1, 5, 33), (5, 1, 100), (7, 1, 300), (9, 1, 32), (33, 2, 100), (128, 2, 100)]:
        how = {"window": window, "keep": 3 if window else 0, "sinks": mx.random.normal((2 * groups,))}
        check("random", nodes, groups=groups, dims=(dim, dim), dtype=dtype, context=context, how=how)


@needs_compiler
@pytest.mark.slow
def test_a_long_context():
    for nodes, groups in [(3, 1), (9, 2), (64, 3)]:
        check("random", nodes, heads=1, groups=groups, dims=(128, 128), context=4097)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "dims", "dtype"), [(5, (64, 64), mx.float16), (33, (256, 256), mx.bfloat16), (9, (80, 96), mx.float32)]
)
@pytest.mark.parametrize("window", [None, 12])
def test_nothing_undefined_happens(nodes, dims, dtype, window):
    how = {"window": window, "sinks": mx.random.normal((2,))}
    check("random", nodes, groups=1, dims=dims, dtype=dtype, context=70, how=how, launch=HostLaunch("asan"))
