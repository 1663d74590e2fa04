"""Standings of races whose figures are known."""

import pytest

from mlx_ddtree.benchmarking.race.record import Turn
from mlx_ddtree.benchmarking.race.standings import standings_of, table_of


def answer(seconds, tokens=11, first=1.0, rounds=5, **more):
    return {"tokens": tokens, "first": first, "seconds": first + seconds, "rounds": rounds} | more


def turn(digest, kind, stock, ours, repeat=0):
    return Turn(digest, kind, repeat, {"mlx_lm": stock, "ours": ours})


def test_ratios_are_seconds_a_token_in_the_geometric_mean():
    turns = [
        turn("a", "easy", answer(4.0), answer(1.0)),
        turn("b", "easy", answer(4.0), answer(2.0, tokens=21)),  # half the seconds for twice the tokens
        turn("c", "hard", answer(2.0), answer(4.0)),
    ]
    [stock, ours] = standings_of(["mlx_lm", "ours"], turns, {})
    assert stock.ratio == stock.total == 1.0
    assert ours.by_kind == {"easy": pytest.approx(4.0), "hard": pytest.approx(0.5)}
    assert ours.ratio == pytest.approx(2.0)
    assert ours.total == pytest.approx((40 / 7) / (30 / 10))
    assert ours.round_ms == pytest.approx(7000 / 15) and ours.tau == pytest.approx(40 / 15)
    assert ours.first_ms == pytest.approx(1000)


def test_a_prompts_median_turn_counts():
    turns = [turn("a", "", answer(4.0), answer(seconds), repeat) for repeat, seconds in enumerate((1.0, 2.0, 90.0))]
    [_, ours] = standings_of(["mlx_lm", "ours"], turns, {})
    assert ours.ratio == pytest.approx(2.0) and ours.prompts == 1 and ours.by_kind == {}


def test_identical_answers_are_counted_where_they_can_be_compared():
    turns = [
        turn("a", "", answer(1.0, identical=True), answer(1.0, identical=True)),
        turn("b", "", answer(1.0, identical=True), answer(1.0, identical=False)),
    ]
    [_, ours] = standings_of(["mlx_lm", "ours"], turns, {})
    assert (ours.identical, ours.compared) == (1, 2)
    assert table_of([ours])[0]["identical"] == "1/2"
    drawn = [turn("a", "", answer(1.0), answer(1.0))]
    assert table_of(standings_of(["ours"], drawn, {}))[0]["identical"] == "-"


def test_who_is_out_stands_on_what_it_answered_and_says_why():
    turns = [
        turn("a", "", answer(4.0), answer(1.0)),
        Turn("b", "", 0, {"mlx_lm": answer(4.0)}),
        turn("c", "", answer(1.0), answer(0.0, tokens=1)),  # nothing to time
    ]
    [_, ours, absent] = standings_of(["mlx_lm", "ours", "absent"], turns, {"ours": "late", "absent": "not installed"})
    assert (ours.prompts, ours.ratio, ours.failure) == (1, pytest.approx(4.0), "late")
    assert (absent.ratio, absent.failure) == (None, "not installed")
    assert [row["entrant"] for row in table_of([ours, absent])] == ["ours"]
