"""No text takes longer than by plain decoding, but for 2 % and a round: whatever drafters, tables and clocks say."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.budget.ledger import DISTURBED, LOSS, MOST, SHORTEST, SURE, SURE_DEBT, Ledger, NeverSlower
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.policy import BudgetPolicy
from mlx_ddtree.budget.profile import ParityBounds, Profile

from .machines import BLOCKS, cost_table
from .simulated import Drafter, Machine, play

BLOCK = BLOCKS[-1]
NEWS = np.random.default_rng(7).integers(0, 50_000, 2000).tolist()
"""No pair of tokens comes twice, so there is nothing to copy."""
STUTTER = np.random.default_rng(7).integers(0, 4, 2000).tolist()
"""Copies offer themselves everywhere, and are wrong."""
KINDS = {
    "hopeless": lambda place: 0.0,
    "hard": lambda place: 0.2,
    "alternating": lambda place: 0.9 if place // 24 % 2 else 0.0,
    "easy, then hopeless": lambda place: 0.9 if place < 80 else 0.0,
}
CLAIMS = {"honest": lambda chance: chance, "always sure": lambda chance: 0.99, "never sure": lambda chance: 0.05}


def new_profile(cost):
    """What a planner is told; its table moves with what it learns, the machine's does not."""
    return Profile(deepcopy(cost), ParityBounds(), BLOCK)


def allowed(machine, tokens):
    """Steps by which a text of so many tokens may be slower: 2 %, and what the largest round took."""
    return LOSS * max(tokens, SHORTEST) + machine.largest_round


@st.composite
def machines(draw):
    """True costs, and how steep they are: rows nearly free to dearer than steps; drafts of 5 to 60 % of a step."""
    return cost_table(per_row=draw(st.floats(0.0, 0.6)), draft_share=draw(st.floats(0.05, 0.6)))


@settings(max_examples=10, deadline=None)
@given(
    machines(), st.sampled_from(list(KINDS)), st.sampled_from(list(CLAIMS)), st.booleans(), st.integers(128, 250),
    st.integers(0, 99),
)  # fmt: skip
def test_a_text_is_at_most_two_per_cent_slower(cost, kind, claim, repeats, tokens, seed):
    machine = Machine(cost)
    text = (STUTTER if repeats else NEWS)[: tokens + 1]
    seconds = play(machine, Planner(new_profile(cost), greedy=True), text, Drafter(KINDS[kind], CLAIMS[claim], seed))
    assert seconds - machine.plain_seconds(tokens, 0) <= allowed(machine, tokens)


@settings(max_examples=6, deadline=None)
@given(machines(), st.floats(0.25, 4.0), st.floats(0.5, 2.0), st.sampled_from(list(KINDS)), st.integers(0, 99))
def test_wrong_tables_are_found_out(cost, verify_factor, draft_factor, kind, seed):
    """Verifications and drafts that take a quarter to four times what the table says, and the text is long enough."""
    rows = [[seconds * verify_factor for seconds in cost.verify[0]]]
    drafts = {block: seconds * draft_factor for block, seconds in cost.draft.items()}
    told = replace(cost_table(), verify=rows, chain=rows, draft=drafts)
    machine = Machine(cost)
    tokens = 250
    seconds = play(
        machine, Planner(new_profile(told), greedy=True), NEWS[: tokens + 1], Drafter(KINDS[kind], seed=seed)
    )
    assert seconds - machine.plain_seconds(tokens, 0) <= allowed(machine, tokens) + machine.largest_round


def test_a_plain_step_that_seems_dear_is_timed_before_it_misleads_for_long():
    """The table says two steps' time for one, and hopeless drafts look as if they paid."""
    cost = cost_table(per_row=0.05, draft_share=0.3)
    told = cost_table(per_row=0.05, draft_share=0.3)
    told.plain = [2.0]
    machine = Machine(cost)
    planner = Planner(new_profile(told), greedy=True)
    seconds = play(machine, planner, NEWS[:301], Drafter(KINDS["hopeless"]))
    assert seconds - 300 <= allowed(machine, 300)
    assert planner.profile.cost.step(0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_a_clock_that_drifts_changes_nothing(factor):
    """Everything takes another time from the middle of the text on, plain decoding too."""
    cost = cost_table(per_row=0.05, draft_share=0.3)
    machine = Machine(cost, clock=lambda seconds: 1.0 if seconds < 60 else factor)
    seconds = play(machine, Planner(new_profile(cost), greedy=True), NEWS[:301], Drafter(KINDS["alternating"]))
    assert seconds - machine.plain_seconds(300, 0) <= allowed(machine, 300)


def test_easy_texts_are_hardly_held_back():
    """Of what drafts of a machine with cheap rows are worth, the first small trees cost little."""
    cost = cost_table(per_row=0.02, draft_share=0.15)
    machine = Machine(cost)
    play(machine, Planner(new_profile(cost), greedy=True), NEWS[:401], Drafter(lambda place: 0.9))
    assert machine.plain_seconds(400, 0) / machine.seconds > 4.0


def test_a_ledger_follows_what_is_learned_of_the_step():
    """Also for rounds that were counted before."""
    ledger = Ledger(100)
    ledger.add(1, 2.0, 2.0, rows=4)
    assert ledger.credit(101, 1.0) == pytest.approx(LOSS * SHORTEST - 1)
    assert ledger.credit(101, 2.0) == pytest.approx(LOSS * SHORTEST)


def in_debt(steps):
    """An account that has lost so many steps more than it may, on a machine of uneven numbers."""
    never_slower = NeverSlower(cost_table(per_row=0.1, draft_share=0.3), BLOCKS[0])
    never_slower.cost.round = 0.0371
    never_slower.ledger(0).lose(LOSS * SHORTEST + steps)
    return never_slower


@given(st.floats(0.0, 0.1))
def test_the_smallest_copy_may_begin_with_nothing_left(debt):
    """It fits into what may be paid to the last digit, whatever was taken off that on the way."""
    never_slower = in_debt(debt)
    policy = BudgetPolicy(never_slower.cost)
    policy.never_slower = never_slower
    affordable = policy.affordable_copy(0, chance=0.5)
    assert policy.choose(np.array([0.0, 0.9]), 0, chain_nodes=1, affordable=affordable).nodes == 1


def test_likely_copies_may_begin_with_debts_and_others_not():
    assert in_debt(1.0).affordable_copy(0, chance=SURE) > 1.0
    assert in_debt(1.0).affordable_copy(0, chance=SURE - 0.01) == 0.0
    assert in_debt(SURE_DEBT + 1.0).affordable_copy(0, chance=1.0) == 0.0


def test_what_is_won_is_kept_up_to_a_limit():
    ledger = Ledger(0)
    ledger.add(100, 1.0, 1.0, rows=4)
    assert ledger.credit(100, 1.0) == MOST
    ledger.add(1, 3.0, 3.0, rows=4)
    assert ledger.credit(101, 1.0) == pytest.approx(MOST - 2)


def test_one_disturbed_round_costs_little_and_two_count():
    """Only where the size was as promised before: a table that is wrong is no disturbance."""
    ledger = Ledger(0)
    ledger.add(1, 10.0, 1.0, rows=8)
    assert ledger.credit(1, 1.0) == pytest.approx(LOSS * SHORTEST - 9)
    ledger = Ledger(0)
    ledger.add(1, 1.0, 1.0, rows=4)
    ledger.add(1, 10.0, 1.0, rows=4)
    assert ledger.credit(2, 1.0) == pytest.approx(LOSS * SHORTEST - (DISTURBED - 1))
    ledger.add(1, 10.0, 1.0, rows=4)
    assert ledger.credit(3, 1.0) == pytest.approx(LOSS * SHORTEST - (DISTURBED - 1) - 9)


@given(st.integers(0, 200), st.floats(0.5, 20.0))
def test_a_pause_brings_in_what_is_asked_for_and_no_more(tokens, lost):
    ledger = Ledger(0)
    ledger.add(0, lost, lost, rows=2)
    pause = ledger.tokens_until(0.5, tokens, 1.0)
    assert ledger.credit(tokens + pause, 1.0) >= 0.5 - 1e-9
    assert pause == 0 or ledger.credit(tokens + pause - 1, 1.0) < 0.5 + 1e-9
