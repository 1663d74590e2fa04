"""Prioritised dynamic continuous indexing (Li and Malik, arXiv 1703.00440): nearest neighbours by random projections.

A simple index is a random direction; it meets points in the order of their projections' distance to the query's.  A
composite index is L of them and has met a point when all of its simple indices have, so in the order of the largest of
the L distances.  m composite indices take turns.  The distances themselves are computed of the points met only.

The order comes from arrays over all points here, not from sorted lists and priority queues: the points are the same,
and numpy does in one call what would be a Python step per point.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.icecache.index.products import product
from mlx_ddtree.icecache.index.table import grown

Metric = Literal["distance", "inner_product"]
Points = NDArray[np.float32]
Numbers = NDArray[np.int32]


class PrioritizedDci:
    """An index over points of dimension `dim`, by smallest Euclidean distance or by largest inner product.

    For inner products, points k are lifted to [k / c, sqrt(1 - |k / c|^2)] and queries to [q / |q|, 0], c the longest
    point's length: the nearest lifted point is then the one of the largest inner product.  A longer point than all
    before rescales the projections; nothing is projected a second time.

    Points are numbered in the order in which they come; a number is never used twice.
    """

    def __init__(
        self, dim: int, *, composites: int = 2, simple: int = 7, metric: Metric = "distance", seed: int = 0
    ) -> None:
        self.dim, self.metric, self.composites, self.simple = dim, metric, composites, simple
        directions = np.random.default_rng(seed).normal(size=(composites * simple, dim + (metric == "inner_product")))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        self._directions = directions.astype(np.float32)
        self._points = np.zeros((0, dim), np.float32)
        self._products = np.zeros((0, composites * simple), np.float32)  # of points as they are with the directions
        self._squares = np.zeros(0, np.float32)
        self._live = np.zeros(0, bool)
        self._longest = 0.0
        self._count = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._live[: self._count]))

    def insert(self, points: Points) -> Numbers:
        """(n, dim) -> (n,) their numbers."""
        points = self._checked(points)
        first, self._count = self._count, self._count + len(points)
        self._points, self._products = grown(self._points, self._count, 0), grown(self._products, self._count, 0)
        self._squares, self._live = grown(self._squares, self._count, 0), grown(self._live, self._count, False)
        new = slice(first, self._count)
        self._points[new], self._live[new] = points, True
        self._products[new] = product(points, self._directions[:, : self.dim].T)
        self._squares[new] = (points**2).sum(axis=1)
        self._longest = max(self._longest, float(np.sqrt(self._squares[new].max(initial=0))))
        return np.arange(first, self._count, dtype=np.int32)

    def delete(self, numbers: NDArray[np.integer]) -> None:
        """Raises KeyError, before anything changed, when one is not there."""
        for number in (numbers := np.asarray(numbers)).tolist():
            if not (0 <= number < self._count and self._live[number]):
                raise KeyError(f"no point {number} in the index")
        self._live[numbers] = False

    def search(self, queries: Points, k: int, *, visit: int | None = None) -> tuple[Numbers, NDArray[np.float32]]:
        """(R, dim) -> (R, k) numbers, best first, and their distances or inner products.

        visit: how many points are met, so how many are compared; None compares all.  More only ever add points.
        Where there are fewer than k, -1 and inf (distance) or -inf (inner product) fill up.
        """
        queries = self._checked(queries)
        live = np.flatnonzero(self._live[: self._count])
        worst = np.inf if self.metric == "distance" else -np.inf
        numbers, values = np.full((len(queries), k), -1, np.int32), np.full((len(queries), k), worst, np.float32)
        for row, query in enumerate(queries):
            met = live if visit is None or visit >= len(live) else live[self._order(query, live)[:visit]]
            compared = self._compare(query, met)
            best = np.lexsort((met, compared if self.metric == "distance" else -compared))[:k]
            numbers[row, : len(best)], values[row, : len(best)] = met[best], compared[best]
        return numbers, values

    def _compare(self, query: Points, met: NDArray[np.integer]) -> NDArray[np.float32]:
        points = self._points[met]
        return product(points, query) if self.metric == "inner_product" else np.linalg.norm(points - query, axis=1)

    def _order(self, query: Points, live: NDArray[np.integer]) -> NDArray[np.integer]:
        """Places in `live` as the composite indices, taking turns, meet them."""
        projected, sought = self._products[live], product(self._directions[:, : self.dim], query)
        if self.metric == "inner_product" and self._longest:
            lift = np.sqrt(np.maximum(1 - self._squares[live] / self._longest**2, 0))
            projected = projected / self._longest + np.outer(lift, self._directions[:, self.dim])
            sought = sought / max(float(np.linalg.norm(query)), 1e-20)
        far = np.abs(projected - sought).reshape(len(live), self.composites, self.simple).max(axis=2)
        turns = np.empty_like(far, np.int64)
        np.put_along_axis(turns, np.argsort(far, axis=0, kind="stable"), np.arange(len(live))[:, None], axis=0)
        return np.argsort(turns.min(axis=1), kind="stable")

    def _checked(self, points: Points) -> Points:
        points = np.asarray(points, np.float32)
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise ValueError(f"points of shape {points.shape}, but this index takes (n, {self.dim})")
        return points
