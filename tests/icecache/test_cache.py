"""A layer that is read in part: what it reads, and that it loses nothing."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import KVCache

from mlx_ddtree.icecache.cache import IceLayer, IceView
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.reads import Reader
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import Pending
from mlx_ddtree.tree import DraftTree

from ..tree.trees import random_tree

OPTIONS = {"budget": 40, "page_size": 4, "sinks": 2, "window": 8}
HEADS, DIM = 2, 8
KINDS = [("sequential", "page_mean"), ("dci", "page_mean"), ("dci", "tree"), ("greedy", "page_mass")]


def rows(rng, count, heads=HEADS):
    return mx.array(rng.standard_normal((1, heads, count, DIM)).astype(np.float32))


def layer_after(options, keys, values):
    """One layer that holds these and is being read in part."""
    base = KVCache()
    base.update_and_fetch(keys, values)
    reader = Reader(options, active=True)
    reader.reads.layers = 1
    return IceLayer(base, reader, PageSet(options), leads=True, first=True)


def oracle(queries, keys, values, seen, sinks):
    """Attention over all keys of which row i of KV head h sees seen (H, N, n)."""
    mask = mx.array(np.repeat(seen, queries.shape[1] // HEADS, axis=0))[None]
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.3, mask=mask, sinks=sinks)


def seen_context(layer, start, count):
    """(H, N, start) bool: sinks, window, and the pages' tokens chosen last."""
    options, chosen = layer.reader.options, np.array(layer.pages.chosen)
    seen = np.zeros((HEADS, count, start), bool)
    seen[:, :, : options.sinks] = seen[:, :, layer.pages.end :] = True
    for h in range(HEADS):
        for i in range(count):
            seen[h, i, chosen[h, i if chosen.shape[1] > 1 else 0]] = True
    return seen


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@pytest.mark.parametrize("select", ["root", "union", "node"])
@pytest.mark.parametrize("offload", [False, True])
@settings(max_examples=6)
@given(seed=st.integers(0, 999), groups=st.sampled_from([1, 3]), with_sinks=st.booleans())
def test_reading_in_part_is_attention_that_sees_no_more(
    tmp_path_factory, kind, select, offload, seed, groups, with_sinks
):
    """Of a tree's rows, then of one row, against full attention with the other keys masked."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.getbasetemp() if offload else None
    options = IceCacheOptions(**OPTIONS, formation=kind[0], ranking=kind[1], select=select, offload=folder)
    start, tree = int(rng.integers(41, 120)), random_tree(int(rng.integers(1, 11)), seed)
    count = len(tree) + int(rng.integers(0, 3))
    keys, values = rows(rng, start + count), rows(rng, start + count)
    queries = rows(rng, count, HEADS * groups)
    sinks = mx.array(rng.standard_normal(HEADS * groups).astype(np.float32)) if with_sinks else None
    layer = layer_after(options, keys[:, :, :start], values[:, :, :start])
    table = TreeRows(tree, start, count)
    view = IceView(layer, table)
    fetched = view.update_and_fetch(keys[:, :, start:], values[:, :, start:])
    assert layer.reader.reads_part(start)
    got = view.attend(queries, *fetched, 0.3, None, sinks)
    seen = np.concatenate([seen_context(layer, start, count), np.repeat(np.array(table.ancestors)[None], HEADS, 0)], -1)
    want = oracle(queries, keys, values, seen, sinks)
    assert mx.abs(got - want)[:, :, : len(tree)].max() < 1e-5
    assert seen[0, 0, :start].sum() <= options.budget

    Pending([view]).commit([0])
    key, value, query = rows(rng, 1), rows(rng, 1), rows(rng, 1, HEADS * groups)
    fetched = layer.update_and_fetch(key, value)
    got = layer.attend(query, *fetched, 0.3, None, sinks)
    whole = [mx.concatenate([x[:, :, : start + 1], new], axis=2) for x, new in ((keys, key), (values, value))]
    seen = np.concatenate([seen_context(layer, start + 1, 1), np.ones((HEADS, 1, 1), bool)], axis=-1)
    assert mx.abs(got - oracle(query, *whole, seen, sinks)).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_a_node_of_its_own_reads_what_a_row_alone_reads(kind):
    """The same pages, so the same attention as decoding the node's path."""
    rng = np.random.default_rng(3)
    options = IceCacheOptions(**OPTIONS, formation=kind[0], ranking=kind[1], select="node")
    start = options.page_end(80) + options.recent - 1  # the window has just passed a page on
    keys, values, tree = rows(rng, start + 3), rows(rng, start + 3), DraftTree.chain(np.array([5, 6, 7]))
    queries = rows(rng, 3, 4)
    assert options.room(start) >= 3
    layer = layer_after(options, keys[:, :, :start], values[:, :, :start])
    view = IceView(layer, TreeRows(tree, start, 3))
    fetched = view.update_and_fetch(keys[:, :, start:], values[:, :, start:])
    together = view.attend(queries, *fetched, 0.3, None, None)
    chosen = np.array(layer.pages.chosen)
    alone = layer_after(options, keys[:, :, :start], values[:, :, :start])
    for i in range(3):
        place = slice(start + i, start + i + 1)
        fetched = alone.update_and_fetch(keys[:, :, place], values[:, :, place])
        got = alone.attend(queries[:, :, i : i + 1], *fetched, 0.3, None, None)
        assert np.array_equal(np.sort(np.array(alone.pages.chosen)[:, 0]), np.sort(chosen[:, i]))
        assert mx.abs(got - together[:, :, i : i + 1]).max() < 1e-5


def everything(layer):
    """Keys and values of all positions, wherever they are."""
    layer.restore()
    return [np.array(x[:, :, : layer.offset]) for x in (layer.keys, layer.values)]


@pytest.mark.parametrize("formation", ["sequential", "dci"])
@pytest.mark.parametrize("offload", [False, True])
@settings(max_examples=15)
@given(data=st.data(), seed=st.integers(0, 999))
def test_nothing_is_lost(tmp_path_factory, formation, offload, data, seed):
    """Prompts, single rows, trees and their commits, rewinding and trimming: the content is a KVCache's, and pages
    hold exactly the committed tokens between sinks and window."""
    rng = np.random.default_rng(seed)
    options = IceCacheOptions(
        **OPTIONS, formation=formation, offload=tmp_path_factory.getbasetemp() if offload else None
    )
    first = rows(rng, 50), rows(rng, 50)
    layer, plain = layer_after(options, *first), KVCache()
    plain.update_and_fetch(*first)
    for _ in range(data.draw(st.integers(1, 8))):
        step, start = data.draw(st.sampled_from(["row", "rows", "tree", "trim", "lost tree"])), layer.offset
        if step in ("row", "rows"):
            count = 1 if step == "row" else int(rng.integers(2, 30))
            new = [rows(rng, count) for _ in range(2)]
            layer.update_and_fetch(*new)
            plain.update_and_fetch(*new)
        elif step == "trim":
            count = data.draw(st.integers(0, layer.offset - 1))
            assert layer.trim(count) == plain.trim(count)
        else:
            tree = random_tree(int(rng.integers(1, 11)), seed)
            new = [rows(rng, len(tree)) for _ in range(2)]
            view, before = IceView(layer, TreeRows(tree, layer.offset, len(tree))), layer.offset
            view.update_and_fetch(*new)
            if step == "lost tree":
                layer.offset = before  # what `rewind` does
            else:
                path = tree.path_to(len(tree) - 1)
                Pending([view]).commit(path)
                plain.update_and_fetch(*(x[:, :, mx.array(path)] for x in new))
        if step in ("row", "tree", "lost tree") and layer.reader.reads_part(start):
            table = np.array(layer.pages.table)
            for own in table:
                held = sorted(own[own >= 0].tolist())
                assert held == list(range(options.sinks, layer.pages.end))
            assert layer.pages.end == options.page_end(start) <= layer.offset
        assert layer.offset == plain.offset
    for got, want in zip(everything(layer), (plain.keys, plain.values), strict=True):
        assert np.array_equal(got, np.array(want[:, :, : plain.offset]))


def test_what_is_put_away_leaves_memory(tmp_path):
    rng = np.random.default_rng(0)
    layer = layer_after(IceCacheOptions(**OPTIONS, offload=tmp_path), rows(rng, 5000), rows(rng, 5000))
    before = layer.nbytes
    layer.update_and_fetch(rows(rng, 1), rows(rng, 1))
    assert layer.gone == layer.pages.end - 2 > 4900
    summaries = layer.pages.nbytes  # a row of 4, and the table of positions
    assert layer.nbytes - summaries < before / 15
