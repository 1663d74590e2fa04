"""A forward that was built before its tree was known computes what one that was built afterwards does, to the bit."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.cache import QuantizedKVCache

from mlx_ddtree.target.blank_rows import BlankRows, can_fill
from mlx_ddtree.target.marks import mark_with_arrays, rewind
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import waits_unevaluated
from mlx_ddtree.tree import DraftTree

from ..families import FAMILIES, tiny_target
from .test_families import CONTEXTS, TREES, prefilled
from .test_views import trees

ROWS = 20
CONTEXT = CONTEXTS["past the windows"]


@pytest.fixture(params=FAMILIES, scope="module")
def target(request):
    return tiny_target(request.param)


def known(target, tree, cache, chain):
    token_ids = np.full(ROWS, tree.token_ids[0])
    token_ids[: len(tree)] = tree.token_ids
    rows = TreeRows(tree, len(CONTEXT), ROWS)
    rows.is_chain = chain
    return target.forward_rows(mx.array(token_ids)[None], rows, cache)


def blank(target, cache, chain=False):
    rows = BlankRows(len(CONTEXT), ROWS, chain=chain)
    return rows, *target.forward_rows(rows.token_ids[None], rows, cache)


def assert_equal(got, want):
    np.testing.assert_array_equal(np.array(got), np.array(want))


def contents(cache):
    return [np.array(array) for layer in cache for array in layer.state if array is not None]


@pytest.mark.parametrize("name", TREES)
def test_a_tree_that_is_filled_in_is_verified_as_one_that_was_known(target, name):
    tree = TREES[name]
    cache = prefilled(target, CONTEXT)
    other = target.copy_cache(cache)
    rows, hidden, _, pending = blank(target, cache, chain=tree.is_chain)
    rows.fill(tree)
    want, _, want_pending = known(target, tree, other, tree.is_chain)
    assert_equal(hidden[:, : len(tree)], want[:, : len(tree)])
    path = tree.path_to(len(tree) - 1)
    pending.commit(path)
    want_pending.commit(path)
    token = mx.array([[7]])
    assert_equal(target.forward(token, cache)[0], target.forward(token, other)[0])


def test_a_forward_that_is_given_up_leaves_the_caches_as_they_were(target):
    cache = prefilled(target, CONTEXT)
    other = target.copy_cache(cache)
    before = mark_with_arrays(cache)
    blank(target, cache)
    rewind(cache, before)
    tree = TREES["bushy"]
    got, _, pending = known(target, tree, cache, False)
    want, _, want_pending = known(target, tree, other, False)
    assert_equal(got, want)
    for one in (pending, want_pending):
        one.commit([0])
    token = mx.array([[7]])
    assert_equal(target.forward(token, cache)[0], target.forward(token, other)[0])


def test_caches_that_are_quantised_can_be_given_back_too():
    target = tiny_target("qwen3", head_dim=64)
    cache = prefilled(target, CONTEXT, lambda: [QuantizedKVCache(64, 8) for _ in target.layers])
    assert waits_unevaluated(cache)
    other = target.copy_cache(cache)
    before = mark_with_arrays(cache)
    blank(target, cache)
    rewind(cache, before)
    assert_equal(known(target, TREES["bushy"], cache, False)[0], known(target, TREES["bushy"], other, False)[0])


def test_what_is_given_up_is_never_computed():
    """Neither then nor when the next forward writes over its rows: nothing of its graph is left."""
    target = tiny_target("qwen3")
    cache = prefilled(target, CONTEXT)
    mx.eval([layer.state for layer in cache])
    before = mark_with_arrays(cache)
    rows, *_ = blank(target, cache)
    rewind(cache, before)
    rows._token_ids.fill(np.full(ROWS, 10**6))  # rows far outside the embedding: garbage, if anything read them
    got = known(target, TREES["bushy"], cache, False)[0]
    assert np.isfinite(np.array(got)).all()
    assert all(layer.keys.shape == before[i][1].shape for i, layer in enumerate(cache))


@given(trees(), st.integers(0, 3), st.integers(0, 9), st.none() | st.integers(1, 8))
def test_masks_and_positions_are_those_of_the_tree(tree, padding, context, window):
    count = len(tree) + padding
    rows = BlankRows(40, count)
    positions = rows.positions
    mask = rows.mask(context, window)
    table = rows.conv_table(4)
    rows.fill(tree)
    want = TreeRows(tree, 40, count)
    want.is_chain = False
    assert_equal(positions, want.positions)
    assert_equal(mask, want.mask(context, window))
    assert_equal(table, want.conv_table(4))
    padded = [*tree.token_ids.tolist(), *[int(tree.token_ids[0])] * padding]
    assert rows.token_ids.tolist() == padded


def test_this_device_reads_what_the_host_fills_in():
    assert can_fill()


def test_a_root_alone_is_no_tree_to_fill_in():
    """It is verified as a step of plain decoding, so that its rounding is that of plain decoding."""
    assert TreeRows(DraftTree.root(3), 5, 1).alone
    assert not BlankRows(5, 4).alone
