"""Every round takes the size with the most tokens for its seconds, and drafts rest while they do not pay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.calibration import DECAY
from mlx_ddtree.budget.cost import ROWS, CostTable
from mlx_ddtree.budget.ledger import LOSS
from mlx_ddtree.budget.policy import FULL_BLOCK_EVERY, MOST_COPIES, BudgetPolicy, Choice
from mlx_ddtree.budget.survival import Survival

from .machines import BLOCKS, cost_table

WHOLE = BLOCKS[-1]


def drafted(policy, accepted, seconds, rounds=1, block_size=WHOLE):
    for _ in range(rounds):
        reached = (np.arange(max(block_size, accepted + 1)) <= accepted).astype(float)
        policy.trust.update(0.9, float(accepted > 0))
        policy.saw_draft(accepted, reached, block_size, seconds, seconds - policy.cost.drafting(block_size))


@st.composite
def decisions(draw):
    """Staircases of any shape, Phi of a tree of up to 40 nodes, how many of them are a chain; tokens and
    seconds of the rounds before."""
    rows = [1, *draw(st.lists(st.integers(2, 30), max_size=8, unique=True).map(sorted))]
    verify = draw(st.lists(st.floats(0.5, 9), min_size=len(rows), max_size=len(rows)))
    weights = sorted(draw(st.lists(st.floats(0, 1), max_size=40)), reverse=True)
    chain = draw(st.lists(st.floats(0.5, 9), min_size=len(rows), max_size=len(rows)))
    cost = CostTable(rows, [0], [verify], [chain], [draw(st.floats(0.5, 2))], {WHOLE: 0.2})
    before = draw(st.integers(0, 8)), draw(st.floats(0.5, 9))
    return cost, np.cumsum([0.0, *weights]), draw(st.integers(0, len(weights))), *before


@given(decisions())
def test_the_chosen_size_is_the_best_of_all(case):
    """Equal to brute force over every number of nodes, each padded to the next measured size."""
    cost, phi, chain_nodes, accepted, seconds = case
    policy = BudgetPolicy(cost)
    drafted(policy, accepted, seconds)
    rate = max((1 + accepted) / seconds, 1 / cost.plain[0])
    values = {}
    for nodes in range(len(phi)):
        rows = next((i for i, n in enumerate(cost.rows) if n > nodes), None)
        if rows is not None:
            table = cost.chain if nodes <= chain_nodes else cost.verify
            values[nodes] = 1 + phi[nodes] - rate * table[0][rows]
    choice = policy.choose(phi, 0, chain_nodes)
    assert choice.value == pytest.approx(max(values.values()))
    assert choice.value == pytest.approx(values[choice.nodes])
    assert choice.expected == phi[choice.nodes]


def test_a_fall_in_value_is_no_end():
    """After a jump of the staircase many more nodes are nearly free."""
    cost = CostTable(
        [1, 2, 4, 16, 32], [0], [[1.0, 1.2, 3.0, 3.1, 9.0]], [[1.0, 1.2, 3.0, 3.1, 9.0]], [1.0], {WHOLE: 0.2}
    )
    phi = np.cumsum([0.0, *np.linspace(0.7, 0.1, 31)])
    policy = BudgetPolicy(cost)
    values = 1 + phi[[0, 1, 3, 15]] - np.array(cost.verify[0][:4])
    assert values[2] < values[1] < values[3]
    assert policy.choose(phi, 0).nodes == 15


def test_worthless_drafts_get_no_nodes():
    assert BudgetPolicy(cost_table()).choose(np.zeros(20), 0).nodes == 0


def pauses(policy, accepted, seconds, count):
    """The pauses before the next `count` drafted rounds, 0 for none; each goes on from where the one before ended."""
    found = []
    context = 0
    for _ in range(count):
        found.append(policy.pause(context))
        context += found[-1]
        if found[-1]:
            assert policy.pause(context) == 0  # then it is tried again
        policy.saw_round(1 + accepted, seconds, seconds, WHOLE, context, drafted=True)
        drafted(policy, accepted, seconds)
        context += 1 + accepted
    return found


def test_drafts_that_lose_are_paid_by_the_pauses_before_them():
    """All that is lost in a long text is 2 % of it; the first drafts may be tried at once."""
    policy = BudgetPolicy(cost_table())
    found = pauses(policy, 0, 1.5, 60)
    assert found[0] == found[1] == 0
    assert LOSS * (sum(found) + 60) + 0.5 >= 60 * 0.5


def test_what_was_won_before_is_not_spent_on_drafts_that_do_not_pay():
    """However much there is: once the counts say so, every draft waits for its own pause."""
    policy = BudgetPolicy(cost_table())
    policy.cost.steps_timed = 1
    assert not any(pauses(policy, 4, 2.0, 40))
    found = pauses(policy, 0, 1.2, 60)
    first = next(i for i, pause in enumerate(found) if pause)
    assert all(found[first:])


def test_a_round_that_paid_is_followed_by_another():
    policy = BudgetPolicy(cost_table())
    policy.cost.steps_timed = 1
    context = sum(pauses(policy, 0, 1.2, 20)) + 20
    policy.saw_round(3, 1.2, 1.2, WHOLE, context, drafted=True)
    drafted(policy, 2, 1.2)
    assert policy.pause(context + 3) == 0


def test_drafts_that_pay_are_never_paused():
    policy = BudgetPolicy(cost_table())
    policy.cost.steps_timed = 1
    assert not any(pauses(policy, 2, 2.0, 50))


def test_a_copy_goes_alone_where_it_is_worth_more_than_drafted_rounds():
    """They are worth nothing on average at the rate that they reach, 4 tokens in 3 seconds."""
    policy = BudgetPolicy(cost_table())
    assert not policy.may_skip_drafter()  # nothing is known of it
    drafted(policy, 3, 3.0, rounds=20)
    assert policy.may_skip_drafter()
    assert policy.beats_others(Choice(4, 3.0, 0.1), 0)
    assert not policy.beats_others(Choice(4, 3.0, -0.1), 0)


def test_copies_do_not_keep_the_drafter_out_for_good():
    policy = BudgetPolicy(cost_table())
    drafted(policy, 3, 3.0, rounds=20)
    for _ in range(MOST_COPIES):
        assert policy.may_skip_drafter()
        policy.saw_copy(4, 1.0, 0)
    assert not policy.may_skip_drafter()


def blocks(policy, accepted, count):
    """The block sizes of the next `count` drafted rounds."""
    sizes = []
    for _ in range(count):
        sizes.append(policy.next_block_size(0))
        drafted(policy, min(accepted, sizes[-1] - 1), 1.5, block_size=sizes[-1])
    return sizes


def test_dear_drafts_that_fail_early_get_short():
    """A whole one now and then, to know its deeper slots, comes only where it can be paid."""
    sizes = blocks(BudgetPolicy(cost_table(draft_share=8.0)), 0, 4 * FULL_BLOCK_EVERY)[-FULL_BLOCK_EVERY:]
    assert set(sizes) == {BLOCKS[0]}


def test_cheap_drafts_that_hold_stay_whole():
    assert set(blocks(BudgetPolicy(cost_table(draft_share=0.05)), WHOLE, 100)) == {WHOLE}


def test_blocks_grow_again_when_survival_recovers():
    policy = BudgetPolicy(cost_table(draft_share=1.0))
    assert BLOCKS[0] in blocks(policy, 0, 200)
    assert set(blocks(policy, WHOLE, 400)[-40:]) == {WHOLE}


def test_a_block_is_no_longer_than_what_holds():
    """Always as many tokens as the shortest block has, never more."""
    sizes = blocks(
        BudgetPolicy(cost_table(draft_share=0.6), known=Survival(WHOLE - 1, DECAY)),
        BLOCKS[0] - 1,
        20 * FULL_BLOCK_EVERY,
    )
    assert set(sizes[-FULL_BLOCK_EVERY + 1 :]) <= {BLOCKS[0], WHOLE}
    assert sizes[-FULL_BLOCK_EVERY:].count(WHOLE) == 1


def test_a_given_block_size_is_kept():
    assert set(blocks(BudgetPolicy(cost_table(draft_share=4.0), block_size=8), 0, 100)) == {8}


def test_a_copied_path_may_be_longer_than_the_block():
    policy = BudgetPolicy(cost_table())
    drafted(policy, 30, 2.0, rounds=200, block_size=BLOCKS[0])
    assert policy.drafted.per_second == pytest.approx(31 / 2)


def test_trees_are_built_small_again_after_a_large_one():
    policy = BudgetPolicy(cost_table(per_row=0.0))
    before = policy.largest()
    policy.choose(np.arange(100.0), 0)
    for _ in range(100):
        policy.choose(np.arange(3.0), 0)
    assert policy.largest() == before


@given(st.lists(st.integers(0, ROWS[-1] - 1), max_size=6))
def test_trees_may_grow_to_twice_what_was_chosen(chosen):
    """At sizes that were measured, so that no row is padding."""
    policy = BudgetPolicy(cost_table(per_row=0.0))
    for nodes in chosen:
        phi = np.arange(nodes + 1.0)
        assert policy.choose(phi, 0).nodes == nodes
        assert policy.largest() >= min(2 * nodes, ROWS[-1] - 1)
        assert policy.largest() + 1 in ROWS


def test_a_pause_goes_on_after_a_copy():
    """What was left of it is asked for again."""
    policy = BudgetPolicy(cost_table())
    policy.cost.steps_timed = 1
    context = sum(pauses(policy, 0, 1.5, 12)) + 12
    pause = policy.pause(context)
    assert pause > 3
    assert policy.pause(context + pause - 3) == 3


def test_no_more_is_verified_than_can_be_paid():
    """The largest size that fits, where larger ones are worth more; the root alone always."""
    policy = BudgetPolicy(cost_table(per_row=0.1))
    phi = np.arange(40.0)
    assert policy.choose(phi, 0).nodes == 39
    assert policy.choose(phi, 0, affordable=1.51).nodes == 5
    assert policy.choose(phi, 0, affordable=0.5).nodes == 0


def test_a_block_is_no_longer_than_can_be_paid():
    """A text begins with blocks that may fail, and ends with the shortest when much has failed."""
    policy = BudgetPolicy(cost_table(draft_share=3.0, per_row=0.0))
    assert policy.next_block_size(0) < WHOLE
    policy.saw_round(1, 2.9, 2.9, WHOLE, 0, drafted=True)
    assert policy.next_block_size(0) == BLOCKS[0]
