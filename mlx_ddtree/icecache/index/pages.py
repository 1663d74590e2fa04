"""Pages of keys: how they are formed, and what an index over them answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.icecache.index.cuts import by_neighbours
from mlx_ddtree.icecache.index.products import product
from mlx_ddtree.icecache.index.ranking import IndexRanking, PageMeans, best_member, first_pages
from mlx_ddtree.icecache.index.table import Keys, PageTable, Tokens


class PageIndex(Protocol):
    """The keys of one layer and one KV head, after RoPE, in pages."""

    page_size: int

    def build(self, keys: Keys) -> None:
        """(n, D): tokens 0..n-1, once."""

    def insert(self, keys: Keys) -> None:
        """(m, D): the next tokens."""

    def delete(self, tokens: NDArray[np.integer]) -> None:
        """Token numbers; raises KeyError, before anything changed, when one is not there."""

    @property
    def pages(self) -> Tokens:
        """(P, page_size) token numbers, -1 where a slot is free; a view, which changes with the index.

        A page's tokens stand in its first slots; its number stays the same while it holds any."""

    def take_changed(self) -> Tokens:
        """Numbers of the pages that changed since this was last asked, those that became empty included."""

    def search(self, queries: Keys, count: int) -> Tokens:
        """(R, D) -> (R, count) page numbers, best first, -1 where there are no more; empty pages never."""


class Pages(ABC):
    """What the formations share: a table of pages, and the rankings that look at every page."""

    def __init__(self, dim: int, page_size: int, ranking: IndexRanking) -> None:
        self.page_size, self.ranking = page_size, ranking
        self.table = PageTable(dim, page_size)
        self._means = PageMeans(self.table)
        self._taken = 0

    @property
    def pages(self) -> Tokens:
        return self.table.pages

    def take_changed(self) -> Tokens:
        changed, self._taken = self.table.changed_since(self._taken), self.table.clock
        return changed

    def build(self, keys: Keys) -> None:
        if self.table.num_tokens:
            raise ValueError("an index is built once; give later keys to insert")
        self._build(self.table.add_keys(keys))

    def insert(self, keys: Keys) -> None:
        self._insert(self.table.add_keys(keys))

    def delete(self, tokens: NDArray[np.integer]) -> None:
        self._delete(self.table.live(tokens))

    def search(self, queries: Keys, count: int) -> Tokens:
        return first_pages(self._scores(np.asarray(queries, np.float32)), count)

    def _scores(self, queries: Keys) -> NDArray[np.float32]:
        """(R, P), -inf for empty pages."""
        if self.ranking == "page_max":
            return best_member(self.table, queries)
        empty = self.table.pages[:, 0] < 0
        return np.where(empty, -np.inf, product(queries, self._means.now().T)).astype(np.float32)

    @abstractmethod
    def _build(self, tokens: Tokens) -> None: ...

    @abstractmethod
    def _insert(self, tokens: Tokens) -> None: ...

    def _delete(self, tokens: Tokens) -> None:
        self.table.remove(tokens)


class SequentialPages(Pages):
    """Consecutive tokens in a page, as in Quest: the baseline, and free."""

    _last = -1

    def _build(self, tokens: Tokens) -> None:
        self._insert(tokens)

    def _insert(self, tokens: Tokens) -> None:
        table, size = self.table, self.page_size
        if self._last >= 0 and 0 < (held := int(table.fill[self._last])) < size:
            for token in tokens[: size - held].tolist():
                table.append(self._last, token)
            tokens = tokens[size - held :]
        if len(tokens):
            groups = [tokens[i : i + size] for i in range(0, len(tokens), size)]
            pages = table.new_pages(len(groups))
            table.write(pages, groups)
            self._last = int(pages[-1])


class GreedyPages(Pages):
    """A key and its nearest neighbours in a page, as in the greedy packing that a fork of IceCache compares with.

    New tokens are packed anew together with the pages nearest to them, so that pages stay full.
    """

    def _build(self, tokens: Tokens) -> None:
        self._pack(tokens, np.zeros(0, np.int32))

    def _insert(self, tokens: Tokens) -> None:
        if not len(tokens):
            return
        table, used = self.table, np.flatnonzero(self.table.fill)
        if not len(used):
            return self._pack(tokens, used)
        means = self._means.now()[used]
        distances = (means**2).sum(axis=1) - 2 * product(table.keys[tokens], means.T)
        nearest = np.unique(used[distances.argmin(axis=1)])
        members = table.pages[nearest]
        return self._pack(np.concatenate([members[members >= 0], tokens]), nearest)

    def _pack(self, tokens: Tokens, pages: NDArray[np.integer]) -> None:
        """Into these pages and as many new ones as it takes; what is not needed becomes empty."""
        groups = [np.sort(tokens[group]) for group in by_neighbours(self.table.keys[tokens], self.page_size)]
        new = self.table.new_pages(max(len(groups) - len(pages), 0))
        pages = np.concatenate([pages, new])
        groups += [tokens[:0]] * (len(pages) - len(groups))
        self.table.write(pages, groups)
