"""Comparing everything is brute force, comparing more never finds less, and few comparisons find most."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.icecache.index.dci import PrioritizedDci

METRICS = ["distance", "inner_product"]


def clusters(n=4096, dim=64, noise=1.0, seed=0):
    """Gaussian clusters as wide as they are apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(64, dim))
    return (centres[rng.integers(0, 64, n)] + noise * rng.normal(size=(n, dim))).astype(np.float32)


def near(points, count, seed=1):
    rng = np.random.default_rng(seed)
    noise = 0.3 * points.std() * rng.normal(size=(count, points.shape[1]))
    return (points[rng.choice(len(points), count)] + noise).astype(np.float32)


def brute_force(points, live, queries, metric, k):
    """(R, k) values, best first."""
    if metric == "inner_product":
        values = -np.sort(-(queries @ points[live].T), axis=1)
    else:
        values = np.sort(np.linalg.norm(points[live] - queries[:, None], axis=2), axis=1)
    return values[:, :k]


def recall(index, queries, k, visit):
    found, exact = index.search(queries, k, visit=visit)[0], index.search(queries, k)[0]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.tolist(), strict=True)])


@pytest.mark.parametrize("metric", METRICS)
@given(st.integers(1, 60), st.integers(0, 20), st.integers(1, 8), st.floats(0.1, 10), st.randoms(use_true_random=False))
def test_all_visited_is_brute_force(metric, first, later, k, longer, random):
    """After inserts, longer points than before among them, and deletes."""
    points = clusters(first + later, 6, seed=first)
    points[first:] *= longer
    index = PrioritizedDci(6, composites=2, simple=3, metric=metric)
    numbers = [*index.insert(points[:first]), *index.insert(points[first:])]
    assert numbers == list(range(len(points)))
    gone = random.sample(numbers, len(numbers) // 3)
    index.delete(np.array(gone, np.int32))
    live = sorted(set(numbers) - set(gone))
    assert len(index) == len(live)
    queries = clusters(4, 6, seed=later)
    for visit in (None, len(live)):
        found, values = index.search(queries, k, visit=visit)
        expected = brute_force(points, live, queries, metric, k)
        n = expected.shape[1]
        assert np.allclose(values[:, :n], expected, atol=1e-4)
        assert set(found[:, :n].ravel().tolist()) <= set(live)
        assert (found[:, n:] == -1).all()
        assert np.isinf(values[:, n:]).all()


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_more_visits_never_lose_a_neighbour(metric, seed):
    points = clusters(200, 8, seed=seed)
    index = PrioritizedDci(8, metric=metric, seed=seed)
    index.insert(points)
    queries = near(points, 3)
    recalls = [recall(index, queries, 5, visit) for visit in range(5, 201, 15)]
    assert recalls == sorted(recalls)


@pytest.mark.parametrize("metric", METRICS)
def test_a_longer_point_rescales_the_rest(metric):
    """Inserting it at once or later makes the same order of visits."""
    points = clusters(300, 8)
    points[200] *= 7
    at_once, later = (PrioritizedDci(8, metric=metric, seed=2) for _ in range(2))
    at_once.insert(points)
    for part in (points[:200], points[200:]):
        later.insert(part)
    for visit in (5, 30, 90):
        pairs = zip(at_once.search(points[:9], 5, visit=visit), later.search(points[:9], 5, visit=visit), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("metric", METRICS)
def test_a_fifth_of_the_points_finds_most_neighbours(metric):
    """4 x 15 on clusters in 64 dimensions; one projection alone finds about as much as it visits."""
    points = clusters()
    index, single = (PrioritizedDci(64, composites=m, simple=simple, metric=metric) for m, simple in ((4, 15), (1, 1)))
    index.insert(points)
    single.insert(points)
    queries = near(points, 32)
    assert recall(index, queries, 10, len(points) // 5) >= 0.8
    assert recall(index, queries, 10, len(points) // 5) > recall(single, queries, 10, len(points) // 5)


@pytest.mark.parametrize("metric", METRICS)
def test_few_intrinsic_dimensions_are_easy(metric):
    """Points near a plane of 4 dimensions among 64."""
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(64, 4)))[0]
    points = (rng.normal(size=(4096, 4)) @ plane.T + 0.01 * rng.normal(size=(4096, 64))).astype(np.float32)
    index = PrioritizedDci(64, composites=4, simple=15, metric=metric)
    index.insert(points)
    assert recall(index, near(points, 32), 10, len(points) // 20) >= 0.95


def test_a_point_that_is_not_there_changes_nothing():
    index = PrioritizedDci(8)
    index.insert(clusters(10, 8))
    index.delete(np.array([3]))
    for missing in (3, 10, -1):
        with pytest.raises(KeyError, match=f"no point {missing}"):
            index.delete(np.array([5, missing]))
    assert len(index) == 9
    with pytest.raises(ValueError, match=r"takes \(n, 8\)"):
        index.insert(np.zeros((2, 7), np.float32))
