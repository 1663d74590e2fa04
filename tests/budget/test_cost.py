"""The table repeats what was measured, is straight between, and follows the rounds' own timings."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.corrections import RATE
from mlx_ddtree.budget.cost import CostTable, never_falling

ROWS, CONTEXTS = [1, 4, 16], [100, 1000, 4000]
VERIFY = [[1.0, 1.5, 4.0], [1.2, 2.0, 4.0], [2.0, 3.0, 10.0]]
CHAIN = [[1.0, 1.25, 3.0], [1.2, 1.5, 3.5], [2.0, 2.5, 8.0]]


def table(**changes):
    verify, chain = ([list(row) for row in seconds] for seconds in (VERIFY, CHAIN))
    measured = CostTable(list(ROWS), list(CONTEXTS), verify, chain, [0.9, 1.1, 1.9], {4: 0.1, 16: 0.4}, 0.05)
    return replace(measured, **changes)


def test_measured_points_are_kept():
    cost = table()
    np.testing.assert_allclose([cost.verification(c) for c in CONTEXTS], VERIFY)
    np.testing.assert_allclose([cost.verification(c, chain=True) for c in CONTEXTS], CHAIN)
    np.testing.assert_allclose([cost.step(c) for c in CONTEXTS], cost.plain)
    assert [cost.drafting(b) for b in cost.draft] == [*cost.draft.values()]


@given(st.integers(100, 20_000))
def test_seconds_go_straight_from_point_to_point_and_on(context):
    """Attention over the context is linear, also behind the last measured one."""
    left = 0 if context < 1000 else 1
    share = (context - CONTEXTS[left]) / (CONTEXTS[left + 1] - CONTEXTS[left])
    low, high = np.array(VERIFY[left : left + 2])
    np.testing.assert_allclose(table().verification(context), low + share * (high - low))
    plain = table().plain[left : left + 2]
    assert table().step(context) == pytest.approx(plain[0] + share * (plain[1] - plain[0]))


def test_contexts_before_the_first_cost_as_much():
    np.testing.assert_allclose(table().verification(0), VERIFY[0])


def test_a_block_between_two_measured_ones():
    assert table().drafting(10) == pytest.approx(0.25)
    assert table(draft={16: 0.4, 4: 0.1}).unread_chain(10, 100) == pytest.approx(0.25 + 3.0)


def test_a_guess_is_corrected_once_in_a_list_that_stands_there_twice():
    shared = [1.0, 1.5, 4.0]
    cost = table(contexts=[100], verify=[shared], chain=[shared], plain=[0.9], guessed=[16])
    cost.saw_verification(16, 100, 8.0)
    assert cost.verification(100) == cost.verification(100, chain=True) == [1.0, 1.5, 8.0]
    assert shared == [1.0, 1.5, 4.0] and cost.guessed == []


@given(st.integers(0, 10**6))
def test_one_context_serves_all(context):
    cost = table(contexts=[500], verify=[VERIFY[1]], chain=[CHAIN[1]], plain=[1.1])
    assert cost.verification(context) == VERIFY[1]
    assert cost.step(context) == 1.1


def test_noise_does_not_make_long_contexts_cheaper():
    """Else the line would reach 0 seconds."""
    seconds = [[1.0, 1.5, 4.0], [0.9, 1.4, 5.0]]
    cost = table(contexts=[100, 200], verify=seconds, chain=seconds, plain=[1.0, 0.8])
    assert cost.verification(10_000)[:2] == [0.9, 1.4]
    assert cost.step(10_000) == 0.8


@pytest.mark.parametrize("ratio", [0.4, 1.3, 5.0])
@pytest.mark.parametrize(
    ("read", "see"),
    [
        (lambda c: c.verification(700)[1], lambda c, s: c.saw_verification(4, 700, s)),
        (lambda c: c.verification(700, True)[1], lambda c, s: c.saw_verification(4, 700, s, True)),
        (lambda c: c.drafting(16), lambda c, s: c.saw_draft(16, s)),
        (lambda c: c.unread_chain(16, 700), lambda c, s: c.saw_unread(16, 700, s)),
        (lambda c: c.round, lambda c, s: c.saw_rest(s)),
    ],
    ids=["verification", "chain", "draft", "unread", "rest"],
)
def test_timings_of_rounds_refine_what_was_measured(read, see, ratio):
    cost = table()
    truth = read(cost) * ratio
    distances = [abs(read(cost) - truth)]
    for _ in range(300):
        see(cost, truth)
        distances.append(abs(read(cost) - truth))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.01 * truth


@pytest.mark.parametrize("ratio", [0.4, 1.3, 5.0])
def test_steps_in_turns_with_rounds_are_priced_against_them(ratio):
    """By themselves they say how fast the machine is; beside rounds that take what they should, what a step costs."""
    cost = table()
    price = cost.step(700) * ratio
    for _ in range(100):
        cost.saw_step(700, price)
        cost.saw_round(1.0, promised=1.0)
    assert cost.step(700) == pytest.approx(price, rel=0.1)


def test_a_timing_is_counted_for_the_size_it_was_padded_to():
    cost = table()
    before = cost.verification(700)
    cost.saw_verification(1000, 700, 99.0)  # was never measured
    assert cost.verification(700) == before
    cost.saw_verification(4, 700, before[1])
    cost.saw_verification(cost.rows[1] + 1, 700, 99.0)  # is padded to the next size
    assert cost.verification(700) == pytest.approx([before[0], before[1], before[2] * (1 + RATE)])
    assert cost.step(700) == table().step(700)


@pytest.mark.parametrize("rest", [0.0, 0.1])
def test_what_a_round_takes_beside_its_parts_is_never_less_than_nothing(rest):
    """Parts that seem to take longer than the whole are a matter of when each was timed."""
    cost = table(round=rest)
    for seconds in (-2.0, -2.0, 0.0, -5.0):
        cost.saw_rest(seconds)
        assert 0 <= cost.round <= rest


def test_one_outlier_counts_little():
    cost = table()
    for see in (
        lambda s: cost.saw_verification(4, 700, s),
        lambda s: cost.saw_step(700, s),
        lambda s: cost.saw_draft(16, s),
    ):
        see(1000.0)
    assert cost.verification(700)[1] <= table().verification(700)[1] * (1 + RATE)
    assert cost.step(700) <= table().step(700) * (1 + RATE)
    assert cost.drafting(16) <= table().drafting(16) * (1 + RATE)


def test_a_refined_table_survives_a_file():
    cost = table()
    cost.saw_verification(4, 700, 9.0)
    cost.saw_step(700, 9.0)
    cost.saw_draft(4, 0.2)
    cost.saw_unread(16, 700, 2.5)
    again = CostTable.from_dict(json.loads(json.dumps(cost.as_dict())))
    pace = cost.pace.factor
    assert pace > 1 and again.pace.factor == 1
    for context in CONTEXTS:
        for chain in (False, True):
            now = [seconds * pace for seconds in cost.verification(context, chain)]
            assert again.verification(context, chain) == pytest.approx(now)
        assert again.step(context) == pytest.approx(cost.step(context) * pace)
    assert again.drafts() == pytest.approx({block: seconds * pace for block, seconds in cost.drafts().items()})
    assert again.round == pytest.approx(cost.round * pace)
    assert again.unread < table().unread


@pytest.mark.parametrize("name", ["rows", "contexts", "verify", "chain", "plain", "draft", "round", "unread"])
def test_a_missing_entry_is_an_error(name):
    saved = table().as_dict()
    del saved[name]
    with pytest.raises(KeyError):
        CostTable.from_dict(saved)


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": ROWS[:2]},
        {"contexts": None},
        {"verify": VERIFY[:2]},
        {"chain": VERIFY[:2]},
        {"verify": [[1.0], [1.0, 2.0], []]},
        {"verify": "fast"},
        {"plain": [1.0]},
        {"draft": {"0": 0.1}},
        {"draft": {"four": 0.1}},
        {"unread": None},
    ],
)
def test_a_damaged_entry_is_an_error(damage):
    with pytest.raises((TypeError, ValueError)):
        CostTable.from_dict(table().as_dict() | damage)


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=20))
def test_more_rows_never_cost_less(seconds):
    """A disturbed timing is no longer than the next larger size's; nothing gets dearer, and the last one stays."""
    least = never_falling(seconds)
    assert least == sorted(least) and least[-1] == seconds[-1]
    assert all(a <= b for a, b in zip(least, seconds, strict=True))
    assert never_falling(least) == least


@pytest.mark.parametrize("wrong", [0.25, 4.0])
def test_an_entry_heals_within_tens_of_visits(wrong):
    cost = table()
    truth = cost.verification(700)[1] * wrong
    for _ in range(40):
        cost.saw_verification(4, 700, truth)
    assert cost.verification(700)[1] == pytest.approx(truth, rel=0.1)
