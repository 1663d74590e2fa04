"""The pages of one layer's keys on the device, and which tokens of them a query reads."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from mlx_ddtree.icecache import IndexRanking, PageIndex, make_pages
from mlx_ddtree.icecache.options import IceCacheOptions, PageRanking

KeysAt = Callable[[mx.array], mx.array]
"""(H, n) positions -> the keys (H, n, D) there."""


class PageSet:
    """Pages of the tokens [sinks, end) for every KV head, and a summary of each page; everything lazy but `index`.

    H: KV heads.  P: pages of the head that has most.  B: choices at a time, one for all rows or one for each.
    table: (H, P, page_size) int32 positions, -1 in free slots; one head stands for all where they agree.
    summaries: (H, P, D) means, or (H, P, 2 D) for 'page_mass'; None for the other rankings.
    chosen: (H, B, retrieved) positions: the last choice, which the layers that share it read too.
    index: by KV head, on the host; empty for pages of consecutive tokens, which need none.
    """

    def __init__(self, options: IceCacheOptions) -> None:
        self.options = options
        self.chosen: mx.array | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all pages."""
        self.end = self.options.sinks
        self.index: list[PageIndex] = []
        self.table = mx.zeros((1, 0, self.options.page_size), mx.int32)
        self.summaries: mx.array | None = None
        self._pages_needed = -(-self.options.retrieved // self.options.page_size)

    @property
    def count(self) -> int:
        """Pages of the head that has most."""
        return self.table.shape[1]

    @property
    def ranked_rows(self) -> int:
        """Vectors that a choice looks at, per KV head: summaries of pages, or keys."""
        if self.options.ranking == "page_mean":
            return self.count
        if self.options.ranking == "page_mass":
            return 2 * self.count
        return self.end - self.options.sinks

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        if self.summaries is None:
            return self.table.nbytes
        return self.table.nbytes + self.summaries.nbytes

    def extend(self, keys: mx.array, keys_at: KeysAt) -> None:
        """Put the next tokens, whole pages of them, into pages: keys (H, m, D).

        keys_at: finds the keys of tokens that are in pages already, whose pages may change.
        If it raises there are no pages.
        """
        end = self.end + keys.shape[1]
        try:
            if self.options.formation == "sequential":
                self._extend_in_order(keys, end)
            else:
                self._extend_index(np.array(keys.astype(mx.float32)))
                if self.options.ranking in ("page_mean", "page_mass"):
                    self._summarise(keys_at)
        except BaseException:
            self.reset()
            raise
        self.end = end

    def _extend_in_order(self, keys: mx.array, end: int) -> None:
        """Pages of consecutive tokens, up to position `end`; earlier ones stay as they are."""
        size = self.options.page_size
        self.table = mx.arange(self.options.sinks, end, dtype=mx.int32).reshape(1, -1, size)
        if self.options.ranking == "page_max":
            return
        pages = keys.reshape(keys.shape[0], -1, size, keys.shape[2])
        new = summary(pages, None, self.options.ranking)
        if self.summaries is None:
            self.summaries = new
        else:
            self.summaries = mx.concatenate([self.summaries, new], axis=1)

    def choose(self, queries: mx.array, keys: mx.array) -> mx.array:
        """For each of B choices the tokens that R queries (H, B, R, D) in turns rank first: (H, B, retrieved).

        keys: (H, end or more, D) by position; read by 'page_max' alone.
        """
        # 1. The best pages of every query; enough of them for all tokens, however few each holds.
        if self.options.ranking == "tree":
            ranked = self._search(queries)
        else:
            ranked = best(self._scores(queries, keys), self._needed)
        # 2. The queries of a choice take turns.
        pages = interleave(ranked, self.count)
        # 3. The tokens of the pages, as many as the budget holds.
        if len(self.table) == 1:
            tokens = mx.take(self.table[0], pages, axis=0)
        else:
            first_of_head = (mx.arange(len(self.table)) * self.count)[:, None, None]
            tokens = mx.take(self.table.reshape(-1, self.options.page_size), pages + first_of_head, axis=0)
        return first_tokens(tokens.flatten(2), self.options.retrieved, full=not self.index)

    @property
    def _needed(self) -> int:
        """Pages of each query that are worth ranking."""
        return min(self._pages_needed, self.count)

    def _scores(self, queries: mx.array, keys: mx.array) -> mx.array:
        """(H, B, R, D) -> (H, B, R, P), -inf for pages without tokens."""
        if self.options.ranking == "page_max":
            return self._best_keys(queries, keys[:, : self.end])
        if self.options.ranking == "page_mass":
            queries = mx.concatenate([queries, queries.square() / 2], axis=-1)
        assert self.summaries is not None
        scores = queries @ self.summaries[:, None].swapaxes(-1, -2)
        if not self.index:
            return scores  # consecutive tokens fill all pages
        empty = self.table[:, None, None, :, 0] < 0
        return mx.where(empty, -mx.inf, scores)

    def _best_keys(self, queries: mx.array, keys: mx.array) -> mx.array:
        """(H, B, R, D) and (H, n, D) -> (H, B, R, P): the largest inner product with a key of the page."""
        scores = queries @ keys[:, None].swapaxes(-1, -2)
        table = mx.broadcast_to(self.table, (len(keys), *self.table.shape[1:])).flatten(1)[:, None, None]
        shape = (*scores.shape[:3], table.shape[-1])
        members = mx.take_along_axis(scores, mx.broadcast_to(mx.maximum(table, 0), shape), axis=-1)
        return mx.where(table < 0, -mx.inf, members).reshape(*shape[:3], -1, self.options.page_size).max(axis=-1)

    def _search(self, queries: mx.array) -> mx.array:
        """(H, B, R, D) -> (H, B, R, pages) by the host's index; empty pages fill up where a head has no others."""
        heads, choices, count, dim = queries.shape
        asking = np.array(queries.astype(mx.float32)).reshape(heads, choices * count, dim)
        ranked = np.empty((heads, choices * count, self._needed), np.int32)
        for head, index in enumerate(self.index):
            for query, found in enumerate(index.search(asking[head], self._needed)):
                with_tokens = found[found >= 0]
                empty = np.setdiff1d(np.arange(self.count), with_tokens)
                ranked[head, query] = np.concatenate([with_tokens, empty])[: self._needed]
        return mx.array(ranked.reshape(heads, choices, count, self._needed))

    def _extend_index(self, keys: np.ndarray) -> None:
        """Put keys (H, m, D) into the host's index and bring its table over."""
        # 1. Into the index of every head.
        if self.index:
            for index, of_head in zip(self.index, keys, strict=True):
                index.insert(of_head)
        else:
            for of_head in keys:
                index = self._new_index(keys.shape[2])
                index.build(of_head)
                self.index.append(index)
        # 2. One table of all heads, in positions; a head with fewer pages has empty ones at the end.
        most = max(len(index.pages) for index in self.index)
        table = np.full((len(self.index), most, self.options.page_size), -1, np.int32)
        for head, index in enumerate(self.index):
            table[head, : len(index.pages)] = np.where(index.pages < 0, -1, index.pages + self.options.sinks)
        self.table = mx.array(table)
        # 3. How many pages hold enough tokens, in the head where it takes most.
        fills = np.count_nonzero(table >= 0, axis=2)
        self._pages_needed = max(pages_for(fill, self.options.retrieved) for fill in fills)

    def _new_index(self, dim: int) -> PageIndex:
        """An empty index for one head; rankings other than its own search are done on the device."""
        ranking: IndexRanking = "tree" if self.options.ranking == "tree" else "page_mean"
        return make_pages(self.options.formation, ranking, dim, self.options.page_size, self.options.seed)

    def _summarise(self, keys_at: KeysAt) -> None:
        """Bring the summaries of changed pages up to date."""
        # 1. The changed pages (H, C); a head with fewer of them has its page 0 done again.
        changed = [index.take_changed() for index in self.index]
        padded = np.zeros((len(changed), max(map(len, changed))), np.int32)
        for head, pages in enumerate(changed):
            padded[head, : len(pages)] = pages
        where = mx.array(padded)[..., None]
        # 2. Their summaries.
        table = mx.take_along_axis(self.table, where, axis=1)
        keys = keys_at(mx.maximum(table, 0).flatten(1))
        new = summary(keys.reshape(*table.shape, -1), table >= 0, self.options.ranking)
        # 3. In place of the old ones.
        old = self.summaries
        if old is None:
            old = mx.zeros((len(changed), 0, new.shape[-1]), new.dtype)
        room_for_all = mx.pad(old, [(0, 0), (0, self.count - old.shape[1]), (0, 0)])
        self.summaries = mx.put_along_axis(room_for_all, mx.broadcast_to(where, new.shape), new, axis=1)


def summary(pages: mx.array, taken: mx.array | None, ranking: PageRanking) -> mx.array:
    """What the ranking has to know of each page: the mean key (H, P, D), or for 'page_mass' (H, P, 2 D), the mean
    and behind it the variance.

    pages: (H, P, page_size, D) keys.  taken: (H, P, page_size) which slots hold one; None: all.

    A query q gives a page of normally distributed keys the mass log mean exp(q k) = q mean + q^2 variance / 2.
    """
    if taken is None:
        shares = mx.full((1, 1, pages.shape[2], 1), 1 / pages.shape[2], pages.dtype)
    else:
        counts = mx.maximum(taken.sum(axis=-1, keepdims=True), 1)
        shares = (taken / counts).astype(pages.dtype)[..., None]
    mean = (pages * shares).sum(axis=2)
    if ranking == "page_mean":
        return mean
    variance = ((pages - mean[:, :, None]).square() * shares).sum(axis=2)
    return mx.concatenate([mean, variance], axis=-1)


def best(scores: mx.array, count: int) -> mx.array:
    """(..., P) -> (..., count) indices of the largest, in descending order."""
    if count >= scores.shape[-1]:
        return mx.argsort(-scores, axis=-1)
    some = mx.argpartition(-scores, count - 1, axis=-1)[..., :count]
    order = mx.argsort(-mx.take_along_axis(scores, some, axis=-1), axis=-1)
    return mx.take_along_axis(some, order, axis=-1)


def interleave(ranked: mx.array, count: int) -> mx.array:
    """The first page of each query, then the second of each, and so on, without what came before.

    ranked: (H, B, R, m) of `count` pages by R queries, best first -> (H, B, m).
    """
    queries, most = ranked.shape[2:]
    if queries == 1:
        return ranked[:, :, 0]
    turns = (mx.arange(most)[None] * queries + mx.arange(queries)[:, None]).astype(mx.int32)
    turn_of_page = mx.full((*ranked.shape[:3], count), queries * most, mx.int32)
    turn_of_page = mx.put_along_axis(turn_of_page, ranked, mx.broadcast_to(turns, ranked.shape), axis=-1)
    return best(-turn_of_page.min(axis=2), most)


def first_tokens(tokens: mx.array, count: int, full: bool) -> mx.array:
    """The first `count` of (H, B, n) positions, without -1, which stands for none.  full: there is no -1."""
    if full:
        return tokens[..., :count]
    n = tokens.shape[-1]
    order = mx.where(tokens < 0, n, mx.arange(n))
    first = mx.argpartition(order, count - 1, axis=-1)[..., :count]
    return mx.take_along_axis(tokens, first, axis=-1)


def pages_for(fill: np.ndarray, tokens: int) -> int:
    """How many pages hold `tokens` tokens, whichever pages they are.  fill: (P,) tokens of each, 0 for none."""
    at_worst = np.cumsum(np.sort(fill[fill > 0]))
    return int(np.searchsorted(at_worst, tokens)) + 1
