"""Ways to cut points into groups of at most a page, of points that are near each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.icecache.index.products import product
from mlx_ddtree.icecache.index.table import Keys

Groups = list[NDArray[np.int64]]
"""Row numbers; every row is in one group."""


def by_neighbours(points: Keys, size: int) -> Groups:
    """A point and its nearest neighbours, again and again; every group but the last is full.

    The next group begins at the point farthest from the last one's first: what lies at the edge is packed while it
    still has neighbours, and the group of left-overs lies in the middle.
    """
    groups: Groups = []
    left = np.arange(len(points))
    points = points - points.mean(axis=0) if len(points) else points
    squares = (points**2).sum(axis=1)
    first = int(squares.argmax()) if len(points) else 0
    while len(left) > size:
        distances = squares - 2 * product(points, points[first])
        nearest = np.argpartition(distances, size - 1)[:size]
        groups.append(left[nearest])
        distances[nearest] = -np.inf
        stay = np.ones(len(left), bool)
        stay[nearest] = False
        first = int(np.count_nonzero(stay[: distances.argmax()]))
        left, points, squares = left[stay], points[stay], squares[stay]
    return [*groups, left] if len(left) else groups


def by_bisection(points: Keys, size: int) -> Groups:
    """Halves of halves along the direction in which they spread most; groups of almost equal size."""
    return _bisected(points, np.arange(len(points)), -(-len(points) // size))


def _bisected(points: Keys, rows: NDArray[np.int64], groups: int) -> Groups:
    if groups <= 1:
        return [rows] if len(rows) else []
    spread = points[rows] - points[rows].mean(axis=0)
    direction = spread[(spread**2).sum(axis=1).argmax()]
    for _ in range(3):  # power iteration; the direction need not be exact
        direction = product(product(spread, direction), spread)
        direction = direction / max(float(np.linalg.norm(direction)), 1e-20)
    order = rows[np.argsort(product(spread, direction), kind="stable")]
    lower = groups // 2
    middle = -(-len(rows) * lower // groups)
    return [*_bisected(points, order[:middle], lower), *_bisected(points, order[middle:], groups - lower)]
