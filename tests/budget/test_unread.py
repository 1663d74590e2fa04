"""Chains stay unread where that is worth more than reading, and reading is never given up for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.policy import Choice
from mlx_ddtree.budget.unread import FIRST_READ, NEARLY, READ_EVERY, TRY_EVERY, Advantage, UnreadChains

ROWS = [1, 2, 4, 8, 16]
SECONDS = [0.010, 0.011, 0.012, 0.014, 0.018]
RATE = 200.0
SURE = np.full(16, 1.0)


def make_chains(share=0.9, sizes=(4, 8, 16), known=None):
    cost = CostTable(
        ROWS, [64], [SECONDS], [SECONDS], [0.01], {size: 0.002 + 0.0001 * size for size in sizes}, unread=share
    )
    return UnreadChains(cost, list(sizes), known)


def read(chains, times, reached=SURE, value=0.0):
    for _ in range(times):
        chains.compare(reached, Choice(4, 1.0, value), RATE, 64)


def test_chains_that_are_worth_more_stay_unread_once_there_is_something_to_compare():
    chains = make_chains()
    read(chains, FIRST_READ - 1)
    assert chains.next_block(RATE, 64) == 0
    read(chains, 1)
    assert chains.next_block(RATE, 64) == 16


def test_what_other_texts_have_shown_counts_from_the_second_draft_on():
    known = Advantage(3)
    read(make_chains(known=known), FIRST_READ)
    chains = make_chains(known=known)
    assert chains.next_block(RATE, 64) == 0
    read(chains, 1)
    assert chains.next_block(RATE, 64) == 16


def test_a_shorter_block_can_win_though_long_ones_are_read():
    chains = make_chains()
    read(chains, 60, reached=np.array([1.0, 1.0, 1.0, 0.9] + [0.01] * 12), value=-1.0)
    assert chains.next_block(RATE, 64) == 4


def test_drafts_are_read_where_reading_is_worth_more():
    chains = make_chains()
    read(chains, 20, value=30.0)
    assert chains.next_block(RATE, 64) == 0


def test_what_not_reading_saves_can_decide():
    """A choice that is worth a little more than the chain is given up only where the wait is dear."""
    value = 16 - RATE * 0.95 * (0.0036 + SECONDS[-1]) + RATE * 0.0036
    cheap, dear = make_chains(share=1.0), make_chains(share=0.8)
    for chains in (cheap, dear):
        read(chains, TRY_EVERY - 1, value=value)
    assert cheap.next_block(RATE, 64) == 0
    assert dear.next_block(RATE, 64) == 16


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60))
def test_drafts_are_read_now_and_then_whatever_happens(accepted):
    chains = make_chains()
    read(chains, FIRST_READ)
    in_a_row = 0
    for count in accepted:
        block_size = chains.next_block(RATE, 64)
        if block_size:
            chains.saw(min(count, block_size - 1), block_size, 0.02, 64)
            in_a_row += 1
        else:
            read(chains, 1)
            in_a_row = 0
        assert in_a_row <= READ_EVERY


def test_a_chain_that_is_nearly_worth_as_much_is_tried_now_and_then():
    """What it takes is known from rounds that tried it, and the clock may have been wrong once."""
    seconds = 0.9 * (0.0036 + SECONDS[-1])
    chains = make_chains(sizes=(16,))
    worth = 16 - RATE * seconds
    read(chains, TRY_EVERY - 1, value=worth + RATE * (0.5 * NEARLY * seconds + 0.0036))
    assert chains.next_block(RATE, 64) == 0
    read(chains, 1, value=worth + RATE * (0.5 * NEARLY * seconds + 0.0036))
    assert chains.next_block(RATE, 64) == 16
    chains.saw(15, 16, seconds, 64)
    assert chains.next_block(RATE, 64) == 0


def test_the_block_follows_the_depth_that_is_accepted():
    chains = make_chains()
    reached = np.array([1.0, 1.0, 1.0, 0.9] + [0.01] * 12)
    read(chains, 60, reached=reached, value=-10.0)
    assert chains.next_block(4 * RATE, 64) == 4


def test_rounds_correct_what_was_measured():
    chains = make_chains(share=1.0)
    read(chains, 20)
    taken = 0.7 * (0.0036 + SECONDS[-1])
    for _ in range(60):
        chains.saw(15, 16, taken, 64)
    assert chains.cost.unread == pytest.approx(0.7, abs=0.02)


def test_blocks_larger_than_what_is_measured_are_never_verified_unread():
    cost = CostTable(ROWS[:3], [64], [SECONDS[:3]], [SECONDS[:3]], [0.01], {4: 0.002, 16: 0.003}, unread=0.5)
    chains = UnreadChains(cost, [4, 16])
    read(chains, 20)
    read(chains, 20, reached=np.full(4, 1.0))
    assert chains.next_block(RATE, 64) == 4
