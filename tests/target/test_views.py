"""Masks, tables and commits of a tree's rows, against their definitions."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx_lm.models.cache import CacheList, ChunkedKVCache, KVCache, QuantizedKVCache, RotatingKVCache

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target.marks import mark, rewind
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import AppendView, RingView, check_cache
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tuning.sample_trees import bushy_tree


@st.composite
def trees(draw, max_nodes=12):
    parents = [-1]
    for i in range(draw(st.integers(0, max_nodes))):
        parents.append(draw(st.integers(0, i)))
    depths = [0]
    for parent in parents[1:]:
        depths.append(depths[parent] + 1)
    tokens = np.arange(len(parents), dtype=np.int32)
    return DraftTree(
        tokens, np.array(parents, np.int32), np.array(depths, np.int32), np.zeros(len(parents), np.float32)
    )


def path_and(tree, node, context):
    """What plain decoding of the node's path has seen: context places, then rows (context + i)."""
    return [*range(context), *(context + i for i in tree.path_to(node))]


@given(trees(), st.integers(0, 9), st.integers(0, 3), st.none() | st.integers(1, 8), st.integers(0, 2))
def test_a_row_sees_the_last_tokens_of_its_own_path(tree, context, padding, window, keep):
    """All of them, or `keep` first ones and as many of the last as the window holds; padding sees itself."""
    keep = 0 if window is None else min(keep, window - 1)
    rows = len(tree) + padding
    mask = np.array(TreeRows(tree, 100, rows).mask(context, window, keep))
    for node in range(len(tree)):
        seen = path_and(tree, node, context)
        if window is not None and len(seen) > window:
            first = [p for p in seen if p < min(keep, context)]
            seen = [*first, *seen[len(seen) - (window - keep) :]]
        assert np.flatnonzero(mask[node]).tolist() == sorted(set(seen))
    for row in range(len(tree), rows):
        assert np.flatnonzero(mask[row, context:]).tolist() == [row]


@given(trees(), st.integers(0, 3), st.integers(1, 5))
def test_a_rows_window_of_the_convolution_is_its_path(tree, padding, kernel):
    table = np.array(TreeRows(tree, 7, len(tree) + padding).conv_table(kernel))
    before = kernel - 1
    for node in range(len(tree)):
        assert table[node].tolist() == path_and(tree, node, before)[-kernel:]
    assert ((table >= 0) & (table < before + len(tree) + padding)).all()


@given(trees(), st.integers(0, 3))
def test_rows_stand_at_their_depth(tree, padding):
    rows = TreeRows(tree, 40, len(tree) + padding)
    assert np.array(rows.positions)[0, : len(tree)].tolist() == (40 + tree.depths).tolist()


def rows_of(count, seed, dim=4):
    return mx.random.normal((1, 2, count, dim), key=mx.random.key(seed))


@settings(max_examples=40)
@given(trees(), st.integers(1, 9), st.data())
def test_an_append_view_keeps_the_paths_rows_in_order(tree, context, data):
    path = tree.path_to(data.draw(st.integers(0, len(tree) - 1)))
    cache, new = KVCache(), rows_of(context + len(tree), 0)
    cache.update_and_fetch(new[:, :, :context], -new[:, :, :context])
    view = AppendView(cache, TreeRows(tree, context, len(tree)))
    for got, want in zip(view.update_and_fetch(new[:, :, context:], -new[:, :, context:]), (new, -new), strict=True):
        np.testing.assert_array_equal(np.array(got), np.array(want))
    view.commit(path)
    want = np.array(new)[:, :, [*range(context), *(context + i for i in path)]]
    np.testing.assert_array_equal(np.array(cache.keys_and_values()[0]), want)
    np.testing.assert_array_equal(np.array(cache.keys_and_values()[1]), -want)
    assert cache.offset == context + len(path)


@pytest.mark.parametrize("path", [[0, 2, 3], [0, 2, 5]])
@pytest.mark.parametrize("quantised", [False, True])
def test_a_commit_does_not_copy_the_context(path, quantised):
    """An assignment to a slice is in place only while nothing else reads the array."""
    context, heads, dim = 4096, 4, 64
    cache = QuantizedKVCache(64, 8) if quantised else KVCache()
    before, new = (mx.random.normal((1, heads, n, dim)) for n in (context, 8))
    cache.update_and_fetch(before, before)
    tree = DraftTree(
        np.zeros(8, np.int32), np.arange(8, dtype=np.int32) - 1, np.arange(8, dtype=np.int32), np.zeros(8, np.float32)
    )
    view = AppendView(cache, TreeRows(tree, context, 8))
    mx.eval(view.update_and_fetch(new, new))
    mx.reset_peak_memory()
    standing = mx.get_active_memory()
    view.commit(path)
    mx.eval(cache.keys, cache.values)
    assert mx.get_peak_memory() - standing < before.nbytes / 16
    assert cache.offset == context + len(path)


@settings(max_examples=60)
@given(trees(), st.integers(2, 10), st.integers(0, 25), st.integers(0, 1), st.data())
def test_a_ring_view_leaves_what_one_token_at_a_time_leaves(tree, size, context, keep, data):
    """The rows that a next token may see, in their order in time; before the commit the ring is untouched."""
    path = tree.path_to(data.draw(st.integers(0, len(tree) - 1)))
    new = rows_of(context + len(tree), 1)
    rings = [RotatingKVCache(size, keep=keep) for _ in range(2)]
    for ring in rings:
        for i in range(context):
            ring.update_and_fetch(new[:, :, i : i + 1], -new[:, :, i : i + 1])
    ours, plain = rings
    view = RingView(ours, TreeRows(tree, context, len(tree)))
    view.update_and_fetch(new[:, :, context:], -new[:, :, context:])
    assert (ours.offset, ours._idx) == (plain.offset, plain._idx)
    view.commit(path)
    for i in path:
        row = new[:, :, context + i : context + i + 1]
        plain.update_and_fetch(row, -row)
    assert ours.offset == plain.offset
    last = rows_of(1, 2)
    for a, b in zip(ours.update_and_fetch(last, last), plain.update_and_fetch(last, last), strict=True):
        assert sorted(np.array(a).reshape(2, -1, 4)[0, :, 0]) == sorted(np.array(b).reshape(2, -1, 4)[0, :, 0])


@settings(max_examples=60)
@given(trees(), st.integers(2, 10), st.integers(0, 25), st.none() | st.integers(1, 14), st.booleans())
def test_a_ring_view_shows_what_window_and_ring_both_show(tree, size, context, window, at_once):
    """The last tokens of a node's path: no more than the layer's window, and no more than the ring holds, also where a
    prompt that came at once has left more rows in the ring than that."""
    ring, new = RotatingKVCache(size), rows_of(context, 1)
    for part in mx.split(new, context, axis=2) if context and not at_once else [new][:context]:
        ring.update_and_fetch(part, part)
    view = RingView(ring, TreeRows(tree, context, len(tree)))
    mask = np.array(view.make_mask(len(tree), return_array=True, window_size=window))
    before = mask.shape[1] - len(tree)
    seen = size if window is None else min(size, window)
    for node in range(len(tree)):
        path = path_and(tree, node, before)
        assert np.flatnonzero(mask[node]).tolist() == path[-seen:]


class Ring:
    """A ring that tokens 0, 1, 2, ... go into; two of them are to stay alike."""

    def __init__(self, size, keep):
        self.cache, self.tokens = RotatingKVCache(size, keep=keep), 0

    def add(self, counts):
        for count in counts:
            rows = mx.arange(self.tokens, self.tokens + count, dtype=mx.float32).reshape(1, 1, count, 1)
            self.cache.update_and_fetch(rows, -rows)
            self.tokens += count

    def verify(self, tree, path):
        """A tree whose path's rows are the next tokens, committed; other rows are no tokens at all."""
        rows = np.full(len(tree), -1.0, np.float32)
        rows[path] = self.tokens + np.arange(len(path))
        view = RingView(self.cache, TreeRows(tree, self.tokens, len(tree)))
        mx.eval(view.update_and_fetch(*[mx.array(x).reshape(1, 1, -1, 1) for x in (rows, -rows)]))
        if path:
            view.commit(path)
            self.tokens += len(path)

    def contents(self):
        """Its rows as they lie, and where the next one goes."""
        cache = self.cache
        arrays = [] if cache.keys is None else [np.array(x)[0, 0, :, 0].tolist() for x in (cache.keys, cache.values)]
        return [*arrays, cache.offset, cache._idx]


@st.composite
def steps(draw):
    """What happens to a ring: rows that come together, one after the other, or as a tree."""
    kind, count = draw(st.sampled_from(["prompt", "plain", "tree"])), draw(st.integers(2, 14))
    if kind == "prompt":
        return lambda ring: ring.add([count])
    if kind == "plain":
        return lambda ring: ring.add([1] * count)
    tree = draw(trees(6))
    path = tree.path_to(draw(st.integers(0, len(tree) - 1))) if draw(st.booleans()) else []
    return lambda ring: ring.verify(tree, path)


@settings(max_examples=150)
@given(
    *(st.integers(2, 10), st.integers(0, 1)),
    *(
        st.lists(steps(), max_size=4),
        st.lists(st.lists(steps(), max_size=3), max_size=3),
        st.lists(steps(), max_size=3),
    ),
)
def test_a_rewound_ring_is_bit_for_bit_what_it_was(size, keep, before, undone, after):
    """Through any number of turns, more than once to the same mark, and for everything that comes later."""
    ring, plain = Ring(size, keep), Ring(size, keep)
    for do in before:
        do(ring)
        do(plain)
    marked, tokens = mark([ring.cache]), ring.tokens
    for actions in undone:
        for do in actions:
            do(ring)
        rewind([ring.cache], marked)
        ring.tokens = tokens
        assert ring.contents() == plain.contents()
    for do in after:
        do(ring)
        do(plain)
        assert ring.contents() == plain.contents()


@settings(max_examples=150)
@given(st.integers(2, 10), st.integers(0, 1), st.lists(st.tuples(steps(), st.booleans()), max_size=6), trees())
def test_a_ring_shows_what_a_cache_that_keeps_everything_would(size, keep, actions, tree):
    """Whatever has happened to it, rewinds among it: a node sees, in their order, the first tokens that stay and the
    latest of its path, as many as the ring holds; keys and values alike."""
    ring = Ring(size, keep)
    for do, undone in actions:
        marked, tokens = mark([ring.cache]), ring.tokens
        do(ring)
        if undone:
            rewind([ring.cache], marked)
            ring.tokens = tokens
    assert ring.cache.offset == ring.tokens
    assume(ring.tokens >= keep)  # what stays is a text's first tokens, which come as its prompt
    view = RingView(ring.cache, TreeRows(tree, ring.tokens, len(tree)))
    rows = 1000 + mx.arange(len(tree), dtype=mx.float32).reshape(1, 1, -1, 1)
    mask = np.array(view.make_mask(len(tree), return_array=True))
    keys, values = (np.array(x)[0, 0, :, 0] for x in view.update_and_fetch(rows, -rows))
    np.testing.assert_array_equal(keys, -values)
    for node in range(len(tree)):
        whole = [*range(ring.tokens), *(1000 + i for i in tree.path_to(node))]
        latest = whole[max(keep, len(whole) - size + keep) :]
        assert keys[mask[node]].tolist() == [*whole[:keep], *latest]


@pytest.mark.parametrize("path", [[0], [0, 1, 2], [0, 2, 5], [0, 3]])
def test_a_round_copies_a_full_ring_once(path, monkeypatch):
    """Keys and values when the rows come, and neither again at the commit, whatever the round before has left."""
    size, heads, dim = 512, 2, 16
    ring, new = RotatingKVCache(size), mx.random.normal((1, heads, 8, dim))
    prompt = mx.random.normal((1, heads, size + 40, dim))
    ring.update_and_fetch(prompt, prompt)
    ring.update_and_fetch(new[:, :, :1], new[:, :, :1])
    copied = []
    concatenate = mx.concatenate

    def counted(arrays, axis=0):
        made = concatenate(arrays, axis)
        copied.append(made.shape[2] >= size)
        return made

    monkeypatch.setattr(mx, "concatenate", counted)
    for round_number in range(4):
        tree = bushy_tree(8, 0)
        view = RingView(ring, TreeRows(tree, ring.offset, 8))
        mx.eval(view.update_and_fetch(new, new))
        shown = sum(copied)
        mx.reset_peak_memory()
        standing = mx.get_active_memory()
        view.commit(path)
        mx.eval(ring.keys, ring.values)
        assert sum(copied) == shown and mx.get_peak_memory() - standing < ring.keys.nbytes / 8
        assert shown == (4 if round_number == 0 else 2)  # sorted once, after the steps of plain decoding
        copied.clear()
        assert ring.keys.shape[2] == size - 1 + len(path)


@settings(max_examples=60)
@given(st.integers(2, 10), st.lists(st.tuples(steps(), st.booleans()), min_size=1, max_size=8), st.data())
def test_a_ring_goes_back_to_any_of_its_marks(size, actions, data):
    """To the latest one first or not: a mark outlives rewinding to another."""
    ring, marks = Ring(size, 0), []
    for do, marking in actions:
        if marking:
            marks.append((mark([ring.cache]), ring.contents()))
        do(ring)
    for marked, contents in data.draw(st.permutations(marks)):
        rewind([ring.cache], marked)
        assert ring.contents() == contents


@pytest.mark.parametrize("cache", [ChunkedKVCache(8), CacheList(KVCache(), ChunkedKVCache(8))])
def test_caches_that_cannot_hold_a_tree_are_refused(cache):
    with pytest.raises(UnsupportedModelError, match="method='ar'"):
        check_cache([KVCache(), cache])


def test_caches_that_can_hold_a_tree_are_taken():
    check_cache([KVCache(), QuantizedKVCache(), RotatingKVCache(8), CacheList(KVCache(), KVCache())])
