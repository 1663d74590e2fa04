"""Graphs that are made ahead: the one that pays on average, used where another one would cost more than it brings."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.graphs import Graph, GraphsAhead

ROWS = [1, 2, 4, 8, 16]
TREES = [0.010, 0.011, 0.012, 0.014, 0.030]
CHAINS = [0.010, 0.011, 0.012, 0.013, 0.020]
RATE = 200.0


def make_graphs():
    return GraphsAhead(CostTable(ROWS, [64], [TREES], [CHAINS], [0.01], {8: 0.002}))


def expected(chance, nodes):
    """Accepted nodes if each more is right with so much less probability."""
    return np.concatenate([[0.0], np.cumsum(chance ** np.arange(1, nodes + 1))])


def test_nothing_is_known_before_the_first_draft():
    assert make_graphs().next() is None


def test_the_next_graph_is_the_one_that_drafts_were_worth_most_in():
    graphs = make_graphs()
    for _ in range(30):
        graphs.compare(expected(0.9, 15), expected(0.5, 15), RATE, 64)
    assert graphs.next() == Graph(8, False)  # 16 rows of a tree take twice as long
    for _ in range(30):
        graphs.compare(expected(0.9, 15), expected(0.9, 15), RATE, 64)
    assert graphs.next().chain  # of the same nodes, which take less time


@given(st.floats(0.01, 0.99), st.sampled_from(ROWS[1:]), st.booleans(), st.integers(1, 15))
def test_a_graph_holds_what_there_is_and_its_making_is_not_counted(chance, rows, chain, nodes):
    graphs = make_graphs()
    phi = expected(chance, nodes)
    free = graphs.fill(Graph(rows, chain, 0.003), phi, RATE, 64)
    dear = graphs.fill(Graph(rows, chain), phi, RATE, 64)
    assert free.nodes == min(rows - 1, nodes)
    assert free.expected == phi[free.nodes]
    np.testing.assert_allclose(free.value - dear.value, RATE * 0.003)


def test_a_graph_that_took_longer_to_make_than_to_run_takes_no_less_than_no_time():
    """As where a tiny model's graph is made while Python collects garbage: what a round is promised stays positive."""
    assert make_graphs().fill(Graph(8, True, 5.0), expected(0.5, 7), RATE, 64).seconds == 0
