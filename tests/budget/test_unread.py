"""Chains stay unread where that is worth more than reading, and reading is never given up for good."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.survival import Survival
from mlx_ddtree.budget.unread import FIRST_READ, NEARLY, READ_EVERY, TRY_EVERY, Comparison, UnreadChains

ROWS = [1, 2, 4, 8, 16]
SECONDS = [0.010, 0.011, 0.012, 0.014, 0.018]
DRAFT = 0.0036  # seconds, of the longest block
SURE = np.full(16, 1.0)


def make_chains(share=0.9, sizes=(4, 8, 16), known=None):
    cost = CostTable(
        ROWS, [64], [SECONDS], [SECONDS], [0.01], {size: 0.002 + 0.0001 * size for size in sizes}, unread=share
    )
    return UnreadChains(cost, list(sizes), known or nothing_known())


def nothing_known():
    return Comparison(Survival(15, 0.99))


def read(chains, times, reached=SURE, expected=1.0):
    """Drafts of which the host has chosen four nodes, which take 14 ms."""
    for _ in range(times):
        chains.compare(reached, 1 + expected, SECONDS[3] + chains.cost.drafting(len(reached)), 64)


def as_good(chains, share):
    """Accepted nodes by which reading has `share` of the rate of the longest block's chain."""
    rate = 16 / float(chains.cost.unread_chain(16, 64))
    return share * rate * (SECONDS[3] + DRAFT) - 1


def test_chains_that_are_worth_more_stay_unread_once_there_is_something_to_compare():
    chains = make_chains()
    read(chains, FIRST_READ - 1)
    assert chains.next_block(64) == 0
    read(chains, 1)
    assert chains.next_block(64) == 16


def test_what_other_texts_have_shown_counts_from_the_second_draft_on():
    known = nothing_known()
    read(make_chains(known=known), FIRST_READ)
    chains = make_chains(known=known)
    assert chains.next_block(64) == 0
    read(chains, 1)
    assert chains.next_block(64) == 16


def test_a_shorter_block_can_win_though_long_ones_are_read():
    chains = make_chains()
    read(chains, 60, reached=np.array([1.0, 1.0, 1.0, 0.9] + [0.01] * 12))
    assert chains.next_block(64) == 4


def test_drafts_are_read_where_reading_is_worth_more():
    chains = make_chains(share=1.0)
    read(chains, 20, expected=15.0)
    assert chains.next_block(64) == 0


def test_what_not_reading_saves_can_decide():
    """A choice that is worth a little more than the chain is given up only where the wait is dear."""
    cheap, dear = make_chains(share=1.0), make_chains(share=0.8)
    for chains in (cheap, dear):
        read(chains, TRY_EVERY - 1, expected=as_good(cheap, 1.1))
    assert cheap.next_block(64) == 0
    assert dear.next_block(64) == 16


@given(st.lists(st.integers(0, 15), min_size=1, max_size=60))
def test_drafts_are_read_now_and_then_whatever_happens(accepted):
    chains = make_chains()
    read(chains, FIRST_READ)
    in_a_row = 0
    for count in accepted:
        block_size = chains.next_block(64)
        if block_size:
            chains.saw(min(count, block_size - 1), block_size)
            in_a_row += 1
        else:
            read(chains, 1)
            in_a_row = 0
        assert in_a_row <= READ_EVERY


def test_a_chain_that_is_nearly_worth_as_much_is_tried_now_and_then():
    """What it takes is known from rounds that tried it, and the clock may have been wrong once."""
    chains = make_chains(sizes=(16,))
    nearly = as_good(chains, 1 + 0.4 * NEARLY)
    read(chains, 60, expected=nearly)
    chains.known.since_a_chain = TRY_EVERY - 1
    assert chains.next_block(64) == 0
    read(chains, 1, expected=nearly)
    assert chains.next_block(64) == 16
    chains.saw(15, 16)
    assert chains.next_block(64) == 0


def test_a_chain_that_does_not_keep_its_promise_gives_way():
    """Drafts promised all of the block, and the target accepts little: seen after a few rounds, without reading."""
    chains = make_chains()
    read(chains, FIRST_READ)
    rounds = 0
    while chains.next_block(64) == 16:
        chains.saw(1, 16)
        rounds += 1
    assert 0 < rounds < READ_EVERY


def test_the_less_a_text_is_trusted_the_shorter_its_first_chain():
    known = nothing_known()
    read(make_chains(known=known), 40, expected=8.0)
    chains = make_chains(known=known)
    read(chains, 1, expected=8.0)
    assert chains.next_block(64, trust=1.0) > chains.next_block(64, trust=0.2) > 0


def test_blocks_larger_than_what_is_measured_are_never_verified_unread():
    cost = CostTable(ROWS[:3], [64], [SECONDS[:3]], [SECONDS[:3]], [0.01], {4: 0.002, 16: 0.003}, unread=0.5)
    chains = UnreadChains(cost, [4, 16], nothing_known())
    read(chains, 20)
    read(chains, 20, reached=np.full(4, 1.0))
    assert chains.next_block(64) == 4


def test_where_no_block_fits_what_is_measured_all_drafts_are_read():
    cost = CostTable(ROWS[:3], [64], [SECONDS[:3]], [SECONDS[:3]], [0.01], {16: 0.003}, unread=0.5)
    chains = UnreadChains(cost, [16], nothing_known())
    read(chains, 2 * FIRST_READ)
    assert chains.next_block(64) == 0
