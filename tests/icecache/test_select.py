"""Which pages are read is what the rule says, whatever the device does to get there."""

import re
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.select import PageSet, best, first_tokens, interleave, pages_for

SEEDS = st.integers(0, 2**32 - 1)
OPTIONS = {"budget": 40, "page_size": 4, "sinks": 2, "window": 8}


def filled(options, keys, pieces):
    """A PageSet over all of keys (H, n, D), given in pieces of so many pages."""
    whole, pages = mx.array(keys), PageSet(options)
    length = keys.shape[1]

    def keys_at(places):
        return mx.take_along_axis(whole, places[..., None], axis=1)

    place = options.sinks
    for piece in pieces:
        stop = min(place + piece * options.page_size, length)
        if stop > place:
            pages.extend(whole[:, place:stop], keys_at)
        place = stop
    return pages, whole


def some_keys(rng, heads, pages, options):
    return rng.standard_normal((heads, options.sinks + pages * options.page_size, 8)).astype(np.float32)


def members(pages, heads):
    """For each head the pages as lists of positions, empty ones too."""
    table = np.array(mx.broadcast_to(pages.table, (heads, *pages.table.shape[1:])))
    return [[row[row >= 0].tolist() for row in own] for own in table]


def score(ranking, query, keys):
    """Of one page, straight from its definition."""
    if ranking == "page_mean":
        return query @ keys.mean(axis=0)
    if ranking == "page_mass":
        return query @ keys.mean(axis=0) + query**2 @ keys.var(axis=0) / 2
    return (keys @ query).max()


def turns(ranked):
    """Lists, best first -> the first of each, then the second of each, each once."""
    return list(dict.fromkeys(page for rank in zip(*ranked, strict=True) for page in rank))


@pytest.mark.parametrize("formation", ["sequential", "dci", "greedy"])
@pytest.mark.parametrize("ranking", ["page_mean", "page_mass", "page_max"])
@settings(max_examples=12)
@given(seed=SEEDS, data=st.data())
def test_the_tokens_are_those_of_the_best_pages_in_turns(formation, ranking, seed, data):
    options = IceCacheOptions(**OPTIONS, formation=formation, ranking=ranking)
    rng = np.random.default_rng(seed)
    heads, sets, rows = 2, data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    keys = some_keys(rng, heads, data.draw(st.integers(8, 20)), options)
    pages, whole = filled(options, keys, [8, *data.draw(st.lists(st.integers(1, 2), max_size=6)), 99])
    queries = rng.standard_normal((heads, sets, rows, 8)).astype(np.float32)
    chosen = np.array(pages.choose(mx.array(queries), whole))
    assert chosen.shape == (heads, sets, options.retrieved)
    for h, own in enumerate(members(pages, heads)):
        assert sorted(t for page in own for t in page) == list(range(options.sinks, keys.shape[1]))
        full = [page for page in own if page]
        for s in range(sets):
            scores = np.array([[score(ranking, q, keys[h, page]) for page in full] for q in queries[h, s]])
            order = turns(np.argsort(-scores, axis=1, kind="stable").tolist())
            want = [token for page in order for token in full[page]][: options.retrieved]
            assert set(chosen[h, s]) == set(want)


@pytest.mark.parametrize(
    ("formation", "ranking"), [("dci", "tree"), *product(["dci", "greedy"], ["page_mean", "page_mass", "page_max"])]
)
def test_empty_pages_are_never_read_before_others(formation, ranking):
    """Even where every key is worse than nothing: an empty page's summary is 0, and all inner products are below."""
    options = IceCacheOptions(**OPTIONS, formation=formation, ranking=ranking)
    keys = -np.random.default_rng(0).uniform(5, 6, (2, options.sinks + 64, 8)).astype(np.float32)
    pages, whole = filled(options, keys[:, :-8], [99])
    for index in pages.index:  # only as many tokens stay as are wanted, in few of the pages
        tokens = index.pages[index.pages >= 0]
        index.delete(tokens[: len(tokens) - options.retrieved + 4])
    whole = mx.array(keys)
    end = pages.end
    pages.extend(whole[:, end : end + 4], lambda places: mx.take_along_axis(whole, places[..., None], axis=1))
    held = members(pages, 2)
    assert all([] in own for own in held)
    chosen = np.array(pages.choose(mx.full((2, 1, 1, 8), 0.1), whole))[:, 0]
    for own, tokens in zip(held, chosen.tolist(), strict=True):
        assert sorted(tokens) == sorted(token for page in own for token in page)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_tree_of_the_index_ranks_by_its_own_search(seed):
    options = IceCacheOptions(**OPTIONS, formation="dci", ranking="tree")
    rng = np.random.default_rng(seed)
    keys = some_keys(rng, 2, 16, options)
    pages, whole = filled(options, keys, [12, 2, 2])
    queries = rng.standard_normal((2, 1, 1, 8)).astype(np.float32)
    chosen = np.array(pages.choose(mx.array(queries), whole))
    for h, index in enumerate(pages.index):
        found = index.search(queries[h, 0], len(index.pages))[0]
        want = [t + options.sinks for page in found[found >= 0] for t in index.pages[page] if t >= 0]
        assert len(set(chosen[h, 0])) == options.retrieved
        shared = min(len(want), options.retrieved)
        assert set(want[:shared]) <= set(chosen[h, 0])


@given(SEEDS, st.integers(1, 4), st.integers(1, 5), st.integers(1, 30))
def test_turns_of_several_queries(seed, sets, rows, count):
    rng = np.random.default_rng(seed)
    most = int(rng.integers(1, count + 1))
    ranked = np.argsort(rng.random((2, sets, rows, count)), axis=-1)[..., :most].astype(np.int32)
    found = np.array(interleave(mx.array(ranked), count))
    for h in range(2):
        for s in range(sets):
            assert found[h, s].tolist() == turns(ranked[h, s].tolist())[:most]


@given(SEEDS, st.integers(1, 40), st.data())
def test_the_best_come_in_order(seed, width, data):
    count = data.draw(st.integers(1, width))
    scores = np.random.default_rng(seed).permutation(width).astype(np.float32)[None]
    assert np.array(best(mx.array(scores), count))[0].tolist() == np.argsort(-scores[0])[:count].tolist()


@given(st.lists(st.integers(-1, 99), min_size=1, max_size=40))
def test_free_slots_are_passed_over(tokens):
    there = [t for t in tokens if t >= 0]
    for count in range(1, len(there) + 1):
        found = first_tokens(mx.array([[tokens]]), count, full=False)
        assert sorted(found.tolist()[0][0]) == sorted(there[:count])


@given(st.lists(st.integers(0, 16), min_size=1, max_size=20), st.data())
def test_so_many_pages_always_hold_enough(fill, data):
    fill = np.array(fill)
    if not fill.sum():
        return
    tokens = data.draw(st.integers(1, int(fill.sum())))
    count = pages_for(fill, tokens)
    assert np.sort(fill[fill > 0])[:count].sum() >= tokens


@given(
    st.integers(20, 300), st.integers(1, 20), st.integers(0, 8), st.integers(1, 40) | st.none(), st.integers(0, 2000)
)
def test_the_budget_is_never_exceeded(budget, page_size, sinks, window, start):
    try:
        options = IceCacheOptions(budget, page_size=page_size, sinks=sinks, window=window)
    except OptionError as error:
        least = int(re.search(r"need (\d+) or more", str(error))[1])
        IceCacheOptions(least, page_size=page_size, sinks=sinks, window=window)
        with pytest.raises(OptionError):
            IceCacheOptions(least - 1, page_size=page_size, sinks=sinks, window=window)
        return
    end = options.page_end(start)
    in_window = start - end
    if not options.reads_all(start):
        assert options.sinks + options.retrieved + in_window <= budget
        assert end - options.sinks >= options.retrieved  # there are so many tokens to choose
        assert options.recent - 1 <= in_window
    same = [(options.reads_all(s), options.reads_all(s) or options.page_end(s)) for s in range(start, start + 400)]
    room = options.room(start)
    assert room >= 1
    assert len(set(same[:room])) == 1
    if room < len(same):
        assert same[room] != same[0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"budget": 12}, "has no room"),
        ({"budget": 256, "formation": "random"}, "unknown formation"),
        ({"budget": 256, "ranking": "tree"}, "needs formation 'dci'"),
        ({"budget": 256, "select": "leaf"}, "unknown select"),
        ({"budget": 256, "page_size": -1}, "at least 1"),
        ({"budget": 256, "reuse": 0}, "at least 1"),
        ({"budget": 256, "window": 0}, "window at least 1"),
        ({"budget": 256, "offload": "/no/such/folder"}, "no folder"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says):
    with pytest.raises(OptionError, match=says):
        IceCacheOptions(**wrong)
