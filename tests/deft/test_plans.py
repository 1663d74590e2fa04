"""Plans say exactly who sees what, read every row once, and cut evenly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.deft.plans import PLANS, PrefixTree, make_plan
from mlx_ddtree.errors import OptionError

from .trees import parents_of, prefix_trees, random_tree, visible

CAPS = st.none() | st.integers(1, 6)


def told(plan, rows):
    """(Q, rows of the cache) how often the plan's groups let a query see a row."""
    counts = np.zeros((len(plan.queries), rows), int)
    for i, (first, end) in enumerate(plan.rows):
        queries, slots, clear = plan.queries[slice(*plan.takes[i])], plan.slots[first:end], plan.clear[i]
        counts[np.ix_(queries, slots[:clear])] += 1
        counts[np.ix_(queries, slots[clear:])] += plan.mask(i)
    return counts


@settings(max_examples=150)
@given(tree=prefix_trees(), kind=st.sampled_from(PLANS), block=st.integers(1, 9), cap=CAPS)
def test_every_query_sees_its_path_once(tree, kind, block, cap):
    plan, wanted = make_plan(tree, kind, block=block, cap=cap), visible(tree)
    np.testing.assert_array_equal(told(plan, wanted.shape[1]), wanted)
    assert sorted(plan.queries) == list(range(len(tree.query_nodes)))
    assert (plan.loads > 0).all() and (plan.takes[:, 1] > plan.takes[:, 0]).all()
    if kind != "flatten":
        assert plan.mask_elements == 0
    if kind != "node":
        assert (plan.loads <= block).all()
    if cap is not None:
        assert (plan.takes[:, 1] - plan.takes[:, 0] <= cap).all()


@settings(max_examples=80)
@given(tree=prefix_trees(), kind=st.sampled_from(PLANS), block=st.integers(1, 9))
def test_rows_are_read_once_and_only_if_somebody_needs_them(tree, kind, block):
    needed = np.flatnonzero(visible(tree).any(axis=0))
    plan = make_plan(tree, kind, block=block)
    assert plan.kv_rows == len(needed)
    np.testing.assert_array_equal(np.sort(plan.slots), needed)


@settings(max_examples=80)
@given(tree=prefix_trees(max_queries=80), block=st.integers(1, 9), cap=CAPS)
def test_bits_are_the_mask_at_any_number_of_queries(tree, block, cap):
    plan = make_plan(tree, "flatten", block=block, cap=cap)
    for i in range(len(plan)):
        mask, words = plan.mask(i), plan.bits(i)
        assert words.shape == (mask.shape[1], -(-mask.shape[0] // 32))
        for row in range(mask.shape[1]):
            seen = [bool(words[row, j // 32] >> np.uint32(j % 32) & 1) for j in range(mask.shape[0])]
            assert seen == mask[:, row].tolist()


@settings(max_examples=60)
@given(tree=prefix_trees(), block=st.integers(1, 9), data=st.data())
def test_breaks_keep_subtrees_apart(tree, block, data):
    nodes = st.lists(st.integers(0, len(tree.parents) - 1), max_size=4)
    breaks = data.draw(nodes)
    plan = make_plan(tree, "flatten", block=block, breaks=breaks)
    wanted = visible(tree)
    np.testing.assert_array_equal(told(plan, wanted.shape[1]), wanted)
    starts = np.cumsum(tree.lengths) - tree.lengths
    first_rows = {int(tree.slots[starts[node]]) for node in breaks if tree.lengths[node]}
    inside = [slot for first, end in plan.rows for slot in plan.slots[first + 1 : end].tolist()]
    assert not first_rows & set(inside)


def test_queries_without_limit():
    """The paper's masks end at 64 queries."""
    tree = random_tree(0, shape="star", nodes=300, queries=300, longest=3)
    plan = make_plan(tree, "flatten", block=10_000)
    assert plan.bits(0).shape[1] == 10  # words of 32
    np.testing.assert_array_equal(told(plan, int(tree.lengths.sum())), visible(tree))


@settings(max_examples=60)
@given(tree=prefix_trees(max_queries=40), block=st.integers(1, 9), cap=st.integers(1, 6))
def test_what_a_cap_reads_again_is_counted(tree, block, cap):
    once = make_plan(tree, "flatten", block=block)
    capped = make_plan(tree, "flatten", block=block, cap=cap)
    pieces = -(-(once.takes[:, 1] - once.takes[:, 0]) // cap)
    assert capped.kv_rows == (once.loads * pieces).sum()
    assert capped.partials == once.partials


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("context", [512, 4096])
def test_flatten_is_balanced_whatever_the_tree(seed, context):
    """Blocks differ by at most a row; the prompt's node makes the node plan's groups as uneven as can be."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 200))
    tree = PrefixTree.behind(context, parents_of("bushy", nodes, rng))
    flat, node = make_plan(tree, "flatten"), make_plan(tree, "node")
    assert flat.loads.max() - flat.loads.min() <= 1
    assert flat.balance <= 1 + 1 / flat.loads.min()
    assert node.balance == pytest.approx(context * (nodes + 1) / (context + nodes))


@pytest.mark.parametrize(("nodes", "context"), [(16, 512), (22, 512), (64, 512), (256, 512), (22, 8192), (256, 8192)])
@pytest.mark.parametrize("kind", PLANS)
def test_a_verification_reads_context_and_tree_once(nodes, context, kind):
    """And its mask is of the tree's rows alone: (nodes + 1) squared at most, not times the context."""
    tree = PrefixTree.behind(context, parents_of("deep", nodes + 1, np.random.default_rng(nodes)))
    plan = make_plan(tree, kind)
    assert plan.kv_rows == context + nodes + 1
    assert plan.mask_elements <= (nodes + 1) ** 2


@pytest.mark.parametrize(
    ("nodes", "context", "per_query", "per_path"),
    [(16, 512, 0.94, 0.85), (256, 512, 0.99, 0.85), (256, 8192, 0.99, 0.85)],
)
def test_rows_saved_against_reading_by_query_and_by_path(nodes, context, per_query, per_path):
    """The figures DeFT is known by, for a draft tree: every node is a query."""
    tree = PrefixTree.behind(context, parents_of("bushy", nodes + 1, np.random.default_rng(7)))
    read = make_plan(tree).kv_rows
    assert round(1 - read / tree.rows_per_query, 2) >= per_query
    assert 1 - read / tree.rows_per_path >= per_path


@settings(max_examples=60)
@given(tree=prefix_trees())
def test_baselines_count_paths(tree):
    seen = visible(tree)
    assert tree.rows_per_query == seen.sum()
    at, above = set(tree.query_nodes.tolist()), set()
    for node in at:
        while (node := tree.parents[node]) >= 0:
            above.add(int(node))
    leaves = at - above
    first = {node: i for i, node in enumerate(tree.query_nodes.tolist())}
    assert tree.rows_per_path == sum(seen[first[leaf]].sum() for leaf in leaves)


@pytest.mark.parametrize(
    "wrong",
    [
        {"parents": [0]},
        {"parents": [-2]},
        {"parents": [-1, 2, 0], "lengths": [1, 1, 1]},
        {"lengths": [-1]},
        {"lengths": [1, 2]},
        {"query_nodes": []},
        {"query_nodes": [1]},
        {"slots": [0, 1]},
    ],
)
def test_what_is_no_tree_is_refused(wrong):
    given = {"parents": [-1], "lengths": [1], "query_nodes": [0]} | wrong
    with pytest.raises(OptionError):
        PrefixTree(**{name: np.array(value, np.int64) for name, value in given.items()})


@pytest.mark.parametrize("how", [{"kind": "other"}, {"block": 0}, {"cap": 0}])
def test_unknown_plans_are_refused(how):
    with pytest.raises(OptionError):
        make_plan(random_tree(0), **how)
