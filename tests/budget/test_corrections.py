"""Sizes in use follow their own timings, the others their neighbours', and nothing that was never used looks dearer than
what was and is larger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.corrections import MOST, RATE, Corrections

SIZES = [1, 2, 4, 8, 16, 32]
MEASURED = [1.0, 1.0, 1.5, 2.0, 3.0, 6.0]


def follow(corrections, size, truth, visits=200):
    """Rounds of one size that take `truth` times what was measured of it."""
    for _ in range(visits):
        factor = corrections.factor(size)
        corrections.refine(size, factor, truth / factor)


def test_nothing_is_corrected_before_the_first_round():
    corrections = Corrections(SIZES)
    assert corrections.applied(MEASURED) == MEASURED
    assert not corrections.any_used


@given(st.dictionaries(st.sampled_from(SIZES), st.floats(0.3, 3.0), min_size=1))
def test_sizes_in_use_have_their_own_factor_and_others_one_between_their_neighbours(truth):
    corrections = Corrections(SIZES)
    for size, factor in truth.items():
        follow(corrections, size, factor)
    used = sorted(truth)
    for place, size in enumerate(SIZES):
        if size in truth:
            assert corrections.factors[place] == pytest.approx(truth[size], rel=0.01)
        around = [
            n
            for n in (
                max((u for u in used if u <= size), default=None),
                min((u for u in used if u >= size), default=None),
            )
            if n
        ]
        values = [truth[n] for n in around]
        assert 0.99 * min(values) <= corrections.factors[place] <= 1.01 * max(values)


@given(st.dictionaries(st.sampled_from(SIZES), st.floats(0.3, 3.0), min_size=1))
def test_what_no_round_has_used_is_never_dearer_than_something_larger_that_one_has(truth):
    corrections = Corrections(SIZES)
    for size, factor in truth.items():
        follow(corrections, size, factor)
    seconds = dict(zip(SIZES, corrections.applied(MEASURED), strict=True))
    for size in SIZES:
        if size not in truth:
            larger = [seconds[n] for n in truth if n > size]
            assert all(seconds[size] <= taken for taken in larger)


def test_a_size_that_really_costs_more_than_a_larger_one_may_say_so():
    """Such steps exist where a GPU changes to another kernel."""
    corrections = Corrections(SIZES)
    follow(corrections, 16, 1.0)
    follow(corrections, 8, 2.0)
    seconds = corrections.applied(MEASURED)
    assert seconds[3] == pytest.approx(4.0, rel=0.01) and seconds[4] == pytest.approx(3.0, rel=0.01)


def test_one_outlier_counts_little_and_a_first_timing_much_where_it_is_asked_to():
    slow, quick = Corrections(SIZES), Corrections(SIZES)
    slow.refine(8, 1.0, 1000.0)
    assert slow.factor(8) == pytest.approx(1 + RATE * (MOST - 1))
    quick.refine(8, 1.0, 0.6, quickly=True)
    assert quick.factor(8) == pytest.approx(0.8)
    assert quick.factor(4) == quick.factor(16) == 1.0  # one round says nothing of other sizes


def test_a_size_between_two_is_that_of_the_larger_one():
    corrections = Corrections(SIZES)
    follow(corrections, 7, 2.0)
    assert corrections.factor(8) == corrections.factor(5) == pytest.approx(2.0, rel=0.01)
