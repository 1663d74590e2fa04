"""Figures: ratios of totals within the run, medians over repeats, intervals that hold what they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.benchmarking.summary import bootstrap_interval, speedups, summarise

from .runs import group, line, write_run


def cell(summary, setting, data="gsm8k", temp=0.0):
    return next(c for c in summary.at(data, temp) if c.setting == setting)


def test_totals(tmp_path):
    groups = [group({"mlx_lm": 4.0, "ddtree 8": 1.0}, index=0), group({"mlx_lm": 6.0, "ddtree 8": 1.5}, index=1)]
    tree = cell(summarise(write_run(tmp_path / "r.jsonl", groups)), "ddtree 8")
    assert (tree.prompts, tree.tokens, tree.identical, tree.compared) == (2, 22, 2, 2)
    assert tree.speedup == pytest.approx(10 / 2.5)
    assert tree.tps == pytest.approx(22 / 2.5)
    assert tree.tau == pytest.approx(20 / 10)
    assert tree.accepted == {1: 8, 3: 2}
    assert tree.stages["verify"] == pytest.approx(1000 * 1.2 / 22)


def test_other_lengths_are_compared_by_the_token(tmp_path):
    """Above temperature 0 the baseline draws another text."""
    lines = [line("mlx_lm", 2.0, temp=1.0, tokens=20, identical=None), *group({"ddtree 8": 1.0}, temp=1.0)[1:]]
    summary = summarise(write_run(tmp_path / "r.jsonl", [lines]))
    assert cell(summary, "ddtree 8", temp=1.0).speedup == pytest.approx((2 / 20) / (1 / 11))
    assert cell(summary, "mlx_lm", temp=1.0).identical is None


def test_the_median_of_repeats_counts(tmp_path):
    groups = [group({"mlx_lm": s, "ddtree 8": 1.0}, repeat=i) for i, s in enumerate((2.0, 3.0, 50.0))]
    tree = cell(summarise(write_run(tmp_path / "r.jsonl", groups)), "ddtree 8")
    assert (tree.prompts, tree.speedup) == (1, pytest.approx(3.0))
    assert (tree.low, tree.high) == (None, None)


def test_differing_answers_are_counted(tmp_path):
    lines = (
        group({}, index=0),
        [*group({}, index=1)[:2], line("ddtree 8", 1.0, index=1, identical=False), line("ddtree auto", 1.0, index=1)],
    )
    summary = summarise(write_run(tmp_path / "r.jsonl", lines))
    assert cell(summary, "ddtree 8").identical == 1 and cell(summary, "ddtree auto").identical == 2


def test_places_and_settings_keep_their_order(tmp_path):
    groups = [group({}, data=data, temp=temp) for data in ("mbpp", "alpaca") for temp in (0.0, 1.0)]
    summary = summarise(write_run(tmp_path / "r.jsonl", groups))
    assert summary.places == [("mbpp", 0.0), ("mbpp", 1.0), ("alpaca", 0.0), ("alpaca", 1.0)]
    assert [c.setting for c in summary.at("alpaca", 1.0)] == summary.header["settings"]


def test_halves_are_split_by_repetition(tmp_path):
    groups = [group({}, index=i, repeated=i / 10, rounds=10 if i < 2 else 2) for i in range(4)]
    fewer, more = summarise(write_run(tmp_path / "r.jsonl", groups)).halves
    assert (fewer["repeated"], more["repeated"]) == (pytest.approx(0.05), pytest.approx(0.25))
    assert (fewer["ddtree 8"], more["ddtree 8"]) == (pytest.approx(1.0), pytest.approx(5.0))
    assert fewer["lookup"] == pytest.approx(1.25)


TOTALS = st.lists(st.tuples(st.integers(1, 300), st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=20)


@given(TOTALS)
def test_the_interval_holds_the_ratio_of_some_prompts(rows):
    tokens, a, b = np.array(rows).T
    stock, ours = (np.stack([tokens, s, tokens, np.ones(len(rows))], axis=1) for s in (a, b))
    low, high = bootstrap_interval(stock, ours)
    single = speedups(stock[:, None], ours[:, None])
    assert single.min() - 1e-9 <= low <= high <= single.max() + 1e-9


@given(TOTALS, st.floats(0.2, 8))
def test_a_ratio_that_never_varies_has_no_interval(rows, ratio):
    tokens, a, _ = np.array(rows).T
    stock, ours = (np.stack([tokens, s, tokens, tokens * 0 + 1], axis=1) for s in (a, a / ratio))
    np.testing.assert_allclose(bootstrap_interval(stock, ours), ratio, rtol=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        tokens = np.full(40, 100.0)
        stock = np.stack([tokens, rng.gamma(20, 0.1, 40), tokens, tokens / 100], axis=1)
        ours = np.stack([tokens, rng.gamma(20, 0.05, 40), tokens, tokens / 100], axis=1)
        low, high = bootstrap_interval(stock, ours)
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 1.0
