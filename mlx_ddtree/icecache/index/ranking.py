"""Which pages a query would read first."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.icecache.index.products import product
from mlx_ddtree.icecache.index.table import Keys, PageTable, Tokens

IndexRanking = Literal["tree", "page_mean", "page_max"]
Scores = NDArray[np.float32]


class PageMeans:
    """(P, D) mean key of every page, kept up to date; what an empty page's row holds means nothing."""

    def __init__(self, table: PageTable) -> None:
        self._table, self._clock = table, 0
        self._means = np.zeros((0, table.dim), np.float32)

    def now(self) -> Keys:
        """(P, D)."""
        table = self._table
        new = np.zeros((table.num_pages - len(self._means), table.dim), np.float32)
        self._means = np.concatenate([self._means, new])
        stale = table.changed_since(self._clock)
        self._clock = table.clock
        members = table.pages[stale]
        held = (members >= 0)[..., None]
        sums = np.where(held, table.keys[np.maximum(members, 0)], 0).sum(axis=1)
        self._means[stale] = sums / np.maximum(held.sum(axis=1), 1)
        return self._means


def best_member(table: PageTable, queries: Keys) -> Scores:
    """(R, D) -> (R, P) largest inner product with a key of the page; -inf where it is empty."""
    scores = product(queries, table.keys.T)
    pages = table.pages
    return np.where(pages >= 0, scores[:, np.maximum(pages, 0)], -np.inf).max(axis=-1)


def first_pages(scores: Scores, count: int) -> Tokens:
    """(R, P) scores -> (R, count) pages, best first, those of lower number first among equals; -1 for -inf and where
    pages run out."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    chosen = np.where(np.isneginf(np.take_along_axis(scores, order, axis=1)), -1, order)
    return np.pad(chosen, ((0, 0), (0, count - chosen.shape[1])), constant_values=-1).astype(np.int32)
