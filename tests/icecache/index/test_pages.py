"""Pages hold every live token once, whatever came and went, and rankings are what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError
from mlx_ddtree.icecache import make_pages

FORMATIONS = ["dci", "greedy", "sequential"]


def clustered(n, dim=8, seed=0):
    """Keys around centres that follow each other, as topics do in a text."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(n // 40, 1), dim))
    drift = np.repeat(centres, 40, axis=0)[:n] if n > 40 else np.repeat(centres, n, axis=0)[:n]
    drift = np.concatenate([drift, rng.normal(size=(n - len(drift), dim))])
    return (drift + 0.3 * rng.normal(size=(n, dim))).astype(np.float32)


def check_pages(index, live):
    """Every live token in exactly one page and slot, no others; pages filled from their first slot on."""
    pages = index.pages
    held = pages[pages >= 0]
    assert sorted(held.tolist()) == sorted(live)
    assert pages.shape[1] == index.page_size
    fill = (pages >= 0).sum(axis=1)
    assert all((row[:n] >= 0).all() and (row[n:] < 0).all() for row, n in zip(pages, fill, strict=True))


STEPS = st.lists(st.tuples(st.sampled_from(["insert", "delete"]), st.integers(1, 40)), max_size=12)


@pytest.mark.parametrize("formation", FORMATIONS)
@settings(max_examples=60)
@given(st.integers(0, 60), STEPS, st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_live_token_stands_in_one_slot(formation, built, steps, page_size, random):
    """And what take_changed leaves out did not change."""
    index = make_pages(formation, "page_max", dim=8, page_size=page_size, seed=1)
    keys = clustered(1000, seed=2)
    index.build(keys[:built])
    live, used = list(range(built)), built
    index.take_changed()
    for step, count in steps:
        before = index.pages.copy()
        if step == "insert":
            index.insert(keys[used : used + count])
            live += range(used, used + count)
            used += count
        else:
            gone = random.sample(live, min(count, len(live)))
            index.delete(np.array(gone, np.int32))
            live = [token for token in live if token not in gone]
        check_pages(index, live)
        changed = set(index.take_changed().tolist())
        same = [page for page in range(len(before)) if page not in changed]
        assert (index.pages[same] == before[same]).all()
        assert changed >= set(range(len(before), len(index.pages)))
        assert not len(index.take_changed())


@pytest.mark.parametrize("formation", FORMATIONS)
@pytest.mark.parametrize("ranking", ["page_mean", "page_max"])
@settings(max_examples=40)
@given(st.integers(0, 100), st.integers(1, 12), st.integers(0, 5))
def test_the_rankings_are_brute_force(formation, ranking, tokens, count, seed):
    """Best first, every page at most once, none that is empty, -1 when there are no more."""
    index = make_pages(formation, ranking, dim=8, page_size=4, seed=seed)
    index.build(clustered(tokens, seed=seed))
    index.search(np.ones((1, 8), np.float32), 3)  # what it remembers of this must not outlive the changes
    index.insert(clustered(9, seed=seed + 10))
    index.delete(np.arange(0, tokens + 9, 2))
    keys = np.concatenate([clustered(tokens, seed=seed), clustered(9, seed=seed + 10)])
    queries = np.random.default_rng(seed).normal(size=(3, 8)).astype(np.float32)
    found = index.search(queries, count)
    assert found.shape == (3, count)
    reduce = np.mean if ranking == "page_mean" else np.max
    for query, row in zip(queries, found, strict=True):
        scores = {i: reduce(keys[page[page >= 0]] @ query) for i, page in enumerate(index.pages) if page[0] >= 0}
        expected = sorted(scores.values(), reverse=True)[:count]
        assert len(set(row[row >= 0].tolist())) == len(expected)
        assert (row[len(expected) :] == -1).all()
        assert np.allclose([scores[i] for i in row[: len(expected)].tolist()], expected, atol=1e-5)


@pytest.mark.parametrize("formation", FORMATIONS)
def test_a_token_that_is_not_there_changes_nothing(formation):
    index = make_pages(formation, "page_max", dim=8, page_size=4)
    index.build(clustered(20))
    index.delete(np.array([3]))
    for missing in (3, 20, -1):
        with pytest.raises(KeyError, match=f"no token {missing}"):
            index.delete(np.array([5, missing]))
    check_pages(index, [token for token in range(20) if token != 3])


def test_a_second_build_and_keys_of_another_size_are_refused():
    index = make_pages("sequential", "page_max", dim=8, page_size=4)
    index.build(clustered(20))
    with pytest.raises(ValueError, match="built once"):
        index.build(clustered(20))
    with pytest.raises(ValueError, match=r"takes \(n, 8\)"):
        index.insert(np.zeros((3, 9), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formation": "kd"}, "unknown page formation 'kd'; choose from dci, greedy, sequential"),
        ({"ranking": "best"}, "unknown page ranking 'best'; choose from"),
        ({"formation": "greedy", "ranking": "tree"}, "needs pages of formation 'dci'"),
        ({"page_size": 0}, "page size of 0 holds no token"),
    ],
)
def test_wrong_names_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        make_pages(**{"formation": "dci", "ranking": "page_max", "dim": 8, "page_size": 4, **options})


def test_sequential_pages_are_the_text_in_order():
    index = make_pages("sequential", "page_max", dim=8, page_size=4)
    index.build(clustered(6))
    index.insert(clustered(7))
    assert index.pages.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, -1, -1, -1]]


@pytest.mark.parametrize("formation", ["dci", "greedy"])
def test_topics_that_recur_share_pages(formation):
    """Where every topic is spread over the whole text, four pages by key hold what consecutive tokens do not."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(32, 16))
    topics = rng.integers(0, 32, 1024)
    keys = (centres[topics] + 0.3 * rng.normal(size=(1024, 16))).astype(np.float32)
    queries = centres[:8].astype(np.float32) / 2
    weights = np.exp(queries @ keys.T)
    weights /= weights.sum(axis=1, keepdims=True)
    shares = {}
    for name in (formation, "sequential"):
        index = make_pages(name, "page_max", 16, 16, 0)
        index.build(keys)
        tokens = index.pages[index.search(queries, 4)].reshape(8, -1)
        shares[name] = np.where(tokens >= 0, np.take_along_axis(weights, np.maximum(tokens, 0), axis=1), 0).sum() / 8
    assert shares[formation] > 1.5 * shares["sequential"]
