"""A selection stays under its cap, keeps what it must, has a middle or refuses, and says why it kept what it kept."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError, PromptError
from mlx_ddtree.pflash.selection import REASONS, select


def prompt(length, seed=0, vocabulary=5000):
    rng = np.random.default_rng(seed)
    return rng.random(length), rng.integers(0, vocabulary, length)


@st.composite
def cases(draw):
    length = draw(st.integers(1, 3000))
    scores, ids = prompt(length, draw(st.integers(0, 99)), draw(st.sampled_from([3, 30, 5000])))
    span = st.tuples(st.integers(0, length), st.integers(0, length)).map(sorted).map(tuple)
    return {
        "scores": scores,
        "token_ids": ids,
        "keep_ratio": draw(st.floats(0.01, 1.0)),
        "protected": draw(st.lists(span, max_size=3)),
        "chunk": draw(st.integers(1, 64)),
        "pool": draw(st.integers(1, 20)),
        "head": draw(st.integers(0, 40)),
        "tail": draw(st.integers(0, 40)),
        "anchors": draw(st.booleans()),
    }


@given(cases())
def test_a_selection_is_under_its_cap_has_a_middle_and_adds_up(case):
    length, chunk, ratio = len(case["token_ids"]), case["chunk"], case["keep_ratio"]
    protected = np.zeros(length, bool)
    for first, end in case["protected"]:
        protected[first:end] = True
    try:
        chosen = select(**case)
    except PromptError as error:
        advice = re.search(r"raise the keep ratio to ([\d.]+)", str(error))
        assert advice or "protect less" in str(error)
        if advice:
            select(**case | {"keep_ratio": float(advice[1])})  # doing as told helps
        return
    kept = chosen.positions
    assert kept.dtype == np.int32 and (np.diff(kept) > 0).all() and kept[0] >= 0 and kept[-1] < length
    assert protected[kept].sum() == protected.sum() == chosen.forced["protected"]
    assert sum(chosen.forced.values()) == len(kept) and tuple(chosen.forced) == REASONS
    assert chosen.requested == math.ceil(ratio * length) and chosen.ratio == len(kept) / length
    needed = int(protected.sum()) + math.ceil(ratio * (length - protected.sum()) / 2)
    assert len(kept) <= max(chosen.requested, needed) + chunk
    assert chosen.over == max(0, len(kept) - chosen.requested - chunk)
    assert chosen.forced["anchors"] + chosen.forced["scores"] > 0  # the middle is never empty
    rest = np.setdiff1d(kept, np.flatnonzero(protected))
    whole = np.concatenate([np.arange(i * chunk, min((i + 1) * chunk, length)) for i in np.unique(rest // chunk)])
    assert set(whole) <= set(kept)  # chunks are kept whole
    assert np.concatenate([np.arange(*span) for span in chosen.spans]).tolist() == kept.tolist()
    assert all(a[1] < b[0] for a, b in zip(chosen.spans, chosen.spans[1:], strict=False))


def test_keep_1_keeps_everything():
    for length in (1, 31, 100):
        scores, ids = prompt(length)
        assert select(scores, ids, 1.0).spans == [(0, length)]


def test_the_chunks_with_the_best_pooled_scores_fill_what_is_left():
    scores, ids = prompt(4000, 3)
    chosen = select(scores, ids, 0.25, anchors=False, head=2, tail=3, pool=13)
    smooth = [np.mean(scores[max(0, i - 6) : i + 7]) for i in range(4000)]
    means = [np.mean(smooth[i : i + 32]) for i in range(0, 4000, 32)]
    middle = [int(i) for i in np.argsort(means)[::-1] if 2 <= i < 122]
    wanted = {0, 1, 122, 123, 124, *middle[: -(-(1000 - 5 * 32) // 32)]}
    assert {int(p) // 32 for p in chosen.positions} == wanted
    assert chosen.forced == {"protected": 0, "head": 64, "tail": 96, "anchors": 0, "scores": 864}


@pytest.mark.parametrize("anchors", [False, True])
def test_a_ratio_that_is_whole_chunks_is_kept_exactly(anchors):
    scores, ids = prompt(3200)
    assert len(select(scores, ids, 0.25, anchors=anchors).positions) == 800


def test_head_and_tail_shrink_alike_and_leave_half_of_the_allowance():
    scores, ids = prompt(4096)
    chosen = select(scores, ids, 0.2, anchors=False)
    assert chosen.forced["head"] == 3 * 32 and chosen.forced["tail"] == 9 * 32
    assert chosen.positions[0] == 0 and chosen.positions[-1] == 4095
    wide = select(*prompt(40_000), 0.2, anchors=False)
    assert wide.forced["head"] == 8 * 32 and wide.forced["tail"] == 24 * 32


def test_protected_spans_above_the_cap_are_kept_and_reported():
    scores, ids = prompt(2000)
    chosen = select(scores, ids, 0.2, protected=[(100, 900), (1500, 1600)])
    assert chosen.requested == 400 and chosen.forced["protected"] == 900
    assert chosen.forced["anchors"] + chosen.forced["scores"] > 0
    assert chosen.over == len(chosen.positions) - 432 > 0


@pytest.mark.parametrize(
    ("length", "ratio", "options", "words"),
    [
        (200, 0.2, {}, "raise the keep ratio to 0.32"),
        (1000, 0.2, {"protected": [(0, 800)]}, "raise the keep ratio to 0.64"),
        (1000, 0.2, {"protected": [(0, 1000)]}, "nothing can be dropped"),
        (1000, 0.9, {"protected": [(64, 936)], "head": 2, "tail": 2}, "raise the keep ratio to 0.936"),
    ],
)
def test_no_middle_is_refused_with_the_way_out(length, ratio, options, words):
    with pytest.raises(PromptError, match=words):
        select(*prompt(length), ratio, **options)


@pytest.mark.parametrize("ratio", [0, -1, 1.01, float("nan")])
def test_ratios_out_of_range_are_refused(ratio):
    with pytest.raises(OptionError, match="keep ratio"):
        select(*prompt(100), ratio)


@pytest.mark.parametrize(
    "change", [{"chunk": 0}, {"pool": 0}, {"head": -1}, {"protected": [(5, 3)]}, {"protected": [(0, 101)]}]
)
def test_other_values_out_of_range_are_refused(change):
    with pytest.raises(OptionError):
        select(*prompt(100), 0.9, **change)


def test_scores_must_be_finite_and_one_for_each_token():
    scores, ids = prompt(100)
    with pytest.raises(OptionError, match="finite"):
        select(scores[1:], ids, 0.9)
    with pytest.raises(OptionError, match="finite"):
        select(np.where(scores > 0.5, np.nan, scores), ids, 0.9)


def plain_matches(ids):
    """The rule of the paper's code, loop by loop."""
    before, places = len(ids) - 96, set()
    for i in range(max(before, 0), len(ids) - 3):
        hits = [j for j in range(before) if list(ids[j : j + 4]) == list(ids[i : i + 4])]
        if len(hits) <= 8:
            places |= set(hits)
    return places


@given(st.integers(0, 2**32), st.integers(90, 400), st.sampled_from([2, 3, 6, 50]))
def test_anchors_are_the_chunks_around_rare_earlier_mentions(seed, length, vocabulary):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocabulary, length)
    source, copied = rng.integers(0, length - 8), rng.integers(max(0, length - 90), length - 8)
    ids[copied : copied + 8] = ids[source : source + 8]
    chunk = 8
    wanted = {c for place in plain_matches(ids) for c in range(place // chunk - 2, place // chunk + 3)}
    # Nothing but anchors may be added where there is more than enough room for them.
    chosen = select(np.zeros(length), ids, 0.9, chunk=chunk, head=0, tail=0)
    everything = {c for c in wanted if 0 <= c < -(-length // chunk)}
    tokens = sum(min((c + 1) * chunk, length) - c * chunk for c in everything)
    assert chosen.forced["anchors"] + chosen.anchors_left_out == tokens


def test_an_anchor_keeps_what_no_score_would():
    scores, ids = prompt(8000, 1)
    ids[4000:4006] = ids[7980:7986]
    assert 4000 in select(np.zeros(8000), ids, 0.2).positions
    scores[3900:4100] = -1
    assert 4000 in select(scores, ids, 0.2).positions
    assert 4000 not in select(scores, ids, 0.2, anchors=False).positions


def test_anchors_beyond_the_cap_go_by_score_and_the_rest_is_counted():
    scores, ids = prompt(8000, 2)
    places = 1000 + 700 * np.arange(8)
    for place in places:
        ids[place : place + 4] = ids[7950:7954]
    scores[places[5] - 20 : places[5] + 24] = 5
    chosen = select(scores, ids, 0.02)
    assert places[5] in chosen.positions and not set(places) <= set(chosen.positions)
    assert chosen.anchors_left_out > 0 and chosen.forced["scores"] > 0
    assert len(chosen.positions) <= chosen.requested + 32


@pytest.mark.parametrize(("length", "radius"), [(30_000, 2), (40_000, 4), (70_000, 8)])
def test_longer_prompts_keep_more_around_an_anchor(length, radius):
    ids = np.arange(length)
    ids[10_000:10_004] = ids[-10:-6]
    chosen = select(np.zeros(length), ids, 0.1)
    assert chosen.forced["anchors"] == (2 * radius + 1) * 32
    assert (10_000 // 32 - radius) * 32 in [first for first, _ in chosen.spans]
