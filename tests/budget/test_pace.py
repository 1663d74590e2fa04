"""Timings are taken at the machine's pace: a slow second says nothing of what things cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.pace import MOST, MOVED, Pace
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.profile import ParityBounds, Profile

from .machines import BLOCKS, cost_table
from .simulated import Drafter, Machine, play

NEWS = np.random.default_rng(3).integers(0, 50_000, 600).tolist()


@given(st.floats(0.4, 2.5))
def test_the_pace_follows_within_a_dozen_timings(factor):
    pace = Pace()
    for _ in range(12):
        pace.saw(factor)
    assert np.log(pace.factor) == pytest.approx(np.log(factor), rel=0.2, abs=0.01)


def test_one_disturbed_timing_is_forgotten():
    pace = Pace()
    pace.saw(100.0)
    assert pace.factor < MOST
    for _ in range(20):
        pace.saw(1.0)
    assert pace.factor == pytest.approx(1.0, abs=0.01)


def test_what_moves_it_without_a_plain_step_puts_plain_decoding_in_doubt():
    pace = Pace()
    while pace.factor < MOVED:
        assert not pace.moved
        pace.saw(1.5)
    assert pace.moved
    pace.saw_step(1.5)
    assert not pace.moved


@pytest.mark.parametrize("factor", [0.6, 1.8])
def test_a_machine_that_changes_its_pace_keeps_its_prices(factor):
    """All things take another time from the middle on; what is known of one against the other stays."""
    cost = cost_table(per_row=0.05, draft_share=0.3)
    machine = Machine(cost, clock=lambda seconds: 1.0 if seconds < 40 else factor)
    profile = Profile(cost_table(per_row=0.05, draft_share=0.3), ParityBounds(), BLOCKS[-1])
    drafter = Drafter(lambda place: 0.3 if place // 50 % 2 else 0.85, seed=1)
    play(machine, Planner(profile, greedy=True), NEWS, drafter)
    learned = profile.cost
    for rows in (1, 4):
        price = float(learned.verification(0)[learned.rows.index(rows)]) / learned.step(0)
        true_price = float(cost.verification(0)[cost.rows.index(rows)]) / cost.step(0)
        assert price == pytest.approx(true_price, rel=0.2)
