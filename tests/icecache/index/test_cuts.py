"""Cuts put every point into one group, of points that are near each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.icecache.index.cuts import by_bisection, by_neighbours

CUTS = [by_bisection, by_neighbours]


def spread(points, groups):
    """Mean squared distance to the mean of one's group."""
    return sum(((points[g] - points[g].mean(axis=0)) ** 2).sum() for g in groups) / len(points)


@pytest.mark.parametrize("cut", CUTS)
@given(st.integers(0, 200), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_every_point_is_in_one_group_and_no_group_is_superfluous(cut, n, size, equal, seed):
    points = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32) * (not equal)
    groups = cut(points, size)
    assert sorted(np.concatenate([*groups, []]).tolist()) == list(range(n))
    sizes = [len(group) for group in groups]
    assert len(groups) == -(-n // size)
    assert max(sizes, default=0) <= size
    if cut is by_bisection:
        assert max(sizes, default=0) - min(sizes, default=0) <= len(groups).bit_length()


@pytest.mark.parametrize("cut", CUTS)
def test_groups_are_of_near_points(cut):
    """Clusters of a page each are found, where consecutive points share nothing."""
    rng = np.random.default_rng(0)
    cluster = rng.permutation(np.repeat(np.arange(32), 16))
    points = (10 * rng.normal(size=(32, 16))[cluster] + rng.normal(size=(512, 16))).astype(np.float32)
    in_order = [np.arange(i, i + 16) for i in range(0, 512, 16)]
    assert spread(points, cut(points, 16)) < 0.5 * spread(points, in_order)
