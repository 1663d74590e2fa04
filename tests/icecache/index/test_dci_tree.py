"""The tree stays a tree under any inserts and deletes, and a descent that looks everywhere finds everything."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mlx_ddtree.icecache.index.dci_tree import ROOT, DciTree

from .test_pages import check_pages, clustered

KEYS = clustered(12_000, seed=5)


def make_tree(n, seed=3, **options):
    tree = DciTree(8, 4, seed=seed, **{"field_of_view": 4, "r1": 0.1, "r2": 0.3, **options})
    tree.build(KEYS[:n])
    return tree


def check_tree(tree, live):
    """Every live token in one slot of a page of its parent's cell; its parent alive and one level up."""
    check_pages(tree, live)
    for page, owner in zip(tree.pages, tree._owner, strict=False):
        assert (tree.parent[page[page >= 0]] == owner).all()
    tokens = np.array(sorted(live), np.int64)
    level, parent = tree.level[tokens], tree.parent[tokens]
    highest = parent == ROOT
    assert (level[highest] == tree.top).all()
    assert (tree.level[parent[~highest]] == level[~highest] + 1).all()
    assert set(parent[~highest].tolist()) <= set(live)


class Coming(RuleBasedStateMachine):
    """Two trees of one seed through the same inserts and deletes."""

    @initialize(built=st.integers(0, 120))
    def build(self, built):
        self.trees = [make_tree(built) for _ in range(2)]
        self.live, self.used = list(range(built)), built

    @rule(count=st.integers(1, 30))
    def insert(self, count):
        for tree in self.trees:
            tree.insert(KEYS[self.used : self.used + count])
        self.live += range(self.used, self.used + count)
        self.used += count

    @rule(random=st.randoms(use_true_random=False), share=st.sampled_from([0.05, 0.3, 1.0]))
    def delete(self, random, share):
        gone = random.sample(self.live, int(share * len(self.live)))
        for tree in self.trees:
            tree.delete(np.array(gone, np.int32))
        self.live = sorted(set(self.live) - set(gone))

    @rule()
    def delete_the_highest(self):
        """Those with the most below them."""
        highest = [token for token in self.live if self.trees[0].parent[token] == ROOT][:3]
        for tree in self.trees:
            tree.delete(np.array(highest, np.int32))
        self.live = sorted(set(self.live) - set(highest))

    @invariant()
    def both_are_the_same_tree(self):
        if hasattr(self, "trees"):
            check_tree(self.trees[0], self.live)
            assert np.array_equal(self.trees[0].pages, self.trees[1].pages)
            found = [tree.search(KEYS[:2], 5) for tree in self.trees]
            assert np.array_equal(*found)


TestComing = Coming.TestCase
TestComing.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


@pytest.mark.slow
def test_ten_thousand_random_inserts_and_deletes():
    rng, tree = np.random.default_rng(0), make_tree(200)
    live, used = list(range(200)), 200
    while used < 10_200:
        count = int(rng.integers(1, 60))
        tree.insert(KEYS[used : used + count])
        live += range(used, used + count)
        used += count
        gone = rng.choice(live, min(len(live), int(rng.integers(0, 58))), replace=False)
        tree.delete(gone)
        live = sorted(set(live) - set(gone.tolist()))
        check_tree(tree, live)


def test_a_level_that_lost_all_its_tokens_fills_again():
    """Tokens of higher levels that are left without children are no dead ends for those that come."""
    tree = make_tree(400)
    assert tree.top >= 3
    high = np.flatnonzero(tree.level >= 2)
    for level in (0, 1):
        tree.delete(np.flatnonzero((tree.level == level) & (tree.table.page_of >= 0)))
    assert sorted(tree.pages[tree.pages >= 0]) == sorted(high)
    tree.r1 = 0.0  # no draw fills it by chance
    for token in range(400, 405):
        tree.insert(KEYS[token : token + 1])
    tree.insert(KEYS[405:600])
    check_tree(tree, [*high.tolist(), *range(400, 600)])


def test_as_many_pages_are_found_as_are_asked_for():
    """However narrow the field of view: a budget of all pages must read all pages."""
    tree = make_tree(400, field_of_view=2)
    found = tree.search(KEYS[:3], 500)
    held = np.flatnonzero(tree.table.fill)
    for row in found:
        assert sorted(row[row >= 0]) == held.tolist()


def test_looking_into_every_cell_finds_the_best_keys():
    """The order of the pages is then that of their best keys."""
    wide, tree = make_tree(500, field_of_view=30), make_tree(500, field_of_view=30)
    queries = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
    for step in range(3):
        wide.field_of_view = 10**6
        tree.ranking = "page_max"
        assert np.array_equal(wide.search(queries, 12), tree.search(queries, 12))
        wide.field_of_view = 30
        for index in (wide, tree):
            index.insert(KEYS[500 + 50 * step : 550 + 50 * step] * (1 + step))  # longer than all before
            index.delete(np.arange(100 * step, 100 * step + 30))


def test_a_narrow_descent_scores_few_keys_and_still_finds_the_best_page():
    """Queries beside keys: the page of the best key comes first in nearly all descents over a quarter of the keys."""
    keys = clustered(3000, seed=8)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    tree = DciTree(8, 16, seed=1, r1=0.05, field_of_view=30)
    tree.build(keys)
    rng = np.random.default_rng(2)
    queries = keys[rng.choice(3000, 100)] + 0.05 * rng.normal(size=(100, 8)).astype(np.float32)
    best = tree.table.page_of[(queries @ keys.T).argmax(axis=1)]
    found = tree.search(queries, 1)[:, 0]
    assert tree.visited < 0.3 * 100 * 3000
    assert (found == best).mean() >= 0.95


def test_seeds_make_different_trees():
    assert not np.array_equal(make_tree(300, seed=1).level, make_tree(300, seed=2).level)
