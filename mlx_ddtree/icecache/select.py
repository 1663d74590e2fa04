"""The pages of one layer's keys on the device, and which tokens of them a query reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mlx.core as mx
import numpy as np

from mlx_ddtree.icecache import PageIndex, make_pages
from mlx_ddtree.icecache.options import IceCacheOptions, Ranking

KeysAt = Callable[[mx.array], mx.array]
"""(H, n) positions -> the keys (H, n, D) there."""


class PageSet:
    """Pages of the tokens [sinks, end) for every KV head, and a summary of each page; everything lazy but `index`.

    table: (H, P, page_size) int32 positions, -1 in free slots; one head stands for all where they agree.
    summaries: (H, P, D), or (H, P, 2 D) for 'page_mass'.
    chosen: (H, B, retrieved) positions: the last choice, which the layers that share it read too.
    ranked_rows: rows that a choice looks at, per KV head.
    index: per KV head, on the host; none for pages of consecutive tokens, which need none.
    """

    def __init__(self, options: IceCacheOptions) -> None:
        self.options = options
        self.chosen: mx.array | None = None
        self.reset()

    def reset(self) -> None:
        """No pages."""
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
        summaries = {"page_mean": self.count, "page_mass": 2 * self.count}
        return summaries.get(self.options.ranking, self.end - self.options.sinks)

    @property
    def nbytes(self) -> int:
        return self.table.nbytes + (0 if self.summaries is None else self.summaries.nbytes)

    def extend(self, keys: mx.array, keys_at: KeysAt) -> None:
        """The next tokens, whole pages of them: keys (H, m, D).  keys_at: finds those that are in pages already.
        If it raises there are no pages."""
        try:
            self._extend(keys, keys_at, self.end + keys.shape[1])
        except BaseException:
            self.reset()
            raise

    def _extend(self, keys: mx.array, keys_at: KeysAt, end: int) -> None:
        if self.options.formation == "sequential":
            size = self.options.page_size
            self.table = mx.arange(self.options.sinks, end, dtype=mx.int32).reshape(1, -1, size)
            pages = keys.reshape(keys.shape[0], -1, size, keys.shape[2])
            if self.options.ranking != "page_max":
                new = summary(pages, None, self.options.ranking)
                self.summaries = new if self.summaries is None else mx.concatenate([self.summaries, new], axis=1)
        else:
            self._index(np.array(keys.astype(mx.float32)), build=not self.index)
            if self.options.ranking in ("page_mean", "page_mass"):
                self._summarise(keys_at)
        self.end = end

    def choose(self, queries: mx.array, keys: mx.array) -> mx.array:
        """For each of B choices the tokens that R queries (H, B, R, D) in turns rank first: (H, B, retrieved).

        keys: (H, end or more, D) by position; read by 'page_max' alone."""
        if self.options.ranking == "tree":
            ranked = self._search(queries)
        else:
            ranked = best(self._scores(queries, keys), self._needed)
        pages = interleave(ranked, self.count) if ranked.shape[2] > 1 else ranked[:, :, 0]
        heads, size = pages.shape[0], self.options.page_size
        if len(self.table) == 1:
            tokens = mx.take(self.table[0], pages, axis=0)
        else:
            places = pages + (mx.arange(heads) * self.count)[:, None, None]
            tokens = mx.take(self.table.reshape(-1, size), places, axis=0)
        return first_tokens(tokens.flatten(2), self.options.retrieved, full=not self.index)

    @property
    def _needed(self) -> int:
        return min(self._pages_needed, self.count)

    def _scores(self, queries: mx.array, keys: mx.array) -> mx.array:
        """(H, B, R, D) -> (H, B, R, P), -inf for pages without tokens."""
        if self.options.ranking == "page_max":
            return self._best_keys(queries, keys[:, : self.end])
        if self.options.ranking == "page_mass":
            queries = mx.concatenate([queries, queries.square() / 2], axis=-1)
        assert self.summaries is not None
        scores = queries @ self.summaries[:, None].swapaxes(-1, -2)
        return mx.where(self.table[:, None, None, :, 0] < 0, -mx.inf, scores) if self.index else scores

    def _best_keys(self, queries: mx.array, keys: mx.array) -> mx.array:
        scores = queries @ keys[:, None].swapaxes(-1, -2)
        table = mx.broadcast_to(self.table, (len(keys), *self.table.shape[1:])).flatten(1)[:, None, None]
        shape = (*scores.shape[:3], table.shape[-1])
        members = mx.take_along_axis(scores, mx.broadcast_to(mx.maximum(table, 0), shape), axis=-1)
        return mx.where(table < 0, -mx.inf, members).reshape(*shape[:3], -1, self.options.page_size).max(axis=-1)

    def _search(self, queries: mx.array) -> mx.array:
        """(H, B, R, D) -> (H, B, R, pages) by the host's index; pages that it did not meet come last, empty ones at
        the very end."""
        rows = np.array(queries.astype(mx.float32))
        ids = np.empty((*rows.shape[:3], self._needed), np.int32)
        for index, head, out in zip(self.index, rows, ids.reshape(len(rows), -1, self._needed), strict=True):
            empty = np.ones(self.count, np.bool_)  # so are pages that only another head has
            empty[: len(index.pages)] = index.pages[:, 0] < 0
            rest = np.argsort(empty, kind="stable")
            for row, found in zip(out, index.search(head.reshape(-1, head.shape[-1]), self._needed), strict=True):
                met = found[found >= 0]
                row[:] = np.concatenate([met, rest[~np.isin(rest, met)]])[: len(row)]
        return mx.array(ids)

    def _index(self, keys: np.ndarray, build: bool) -> None:
        """Put keys (H, m, D) into the host's index and bring its table over."""
        options, size = self.options, self.options.page_size
        if build:
            how: Literal["tree", "page_mean"] = "tree" if options.ranking == "tree" else "page_mean"
            self.index = [make_pages(options.formation, how, keys.shape[2], size, options.seed) for _ in keys]
        for index, own in zip(self.index, keys, strict=True):
            (index.build if build else index.insert)(own)
        tables = [index.pages for index in self.index]
        most = max(map(len, tables))
        table = np.full((len(tables), most, size), -1, np.int32)
        for own, pages in zip(table, tables, strict=True):
            own[: len(pages)] = np.where(pages < 0, -1, pages + options.sinks)
        self.table = mx.array(table)
        self._pages_needed = max(pages_for(np.count_nonzero(own >= 0, axis=1), options.retrieved) for own in table)

    def _summarise(self, keys_at: KeysAt) -> None:
        """Bring the summaries of changed pages up to date."""
        changed = [index.take_changed() for index in self.index]
        most = max(map(len, changed))
        places = np.zeros((len(changed), most), np.int32)  # page 0 again, where another head has more
        for own, pages in zip(places, changed, strict=True):
            own[: len(pages)] = pages
        at = mx.array(places)
        table = mx.take_along_axis(self.table, at[..., None], axis=1)
        keys = keys_at(mx.maximum(table, 0).flatten(1))
        new = summary(keys.reshape(*table.shape, -1), table >= 0, self.options.ranking)
        old = self.summaries if self.summaries is not None else mx.zeros((len(changed), 0, new.shape[-1]), new.dtype)
        whole = mx.pad(old, [(0, 0), (0, self.count - old.shape[1]), (0, 0)])
        self.summaries = mx.put_along_axis(whole, mx.broadcast_to(at[..., None], new.shape), new, axis=1)


def summary(pages: mx.array, held: mx.array | None, ranking: Ranking) -> mx.array:
    """Keys (H, P, page_size, D), and which slots (H, P, page_size) hold one (None: all) -> (H, P, D) means; for
    'page_mass' (H, P, 2 D), variances behind them.

    A query q gives a page of normally distributed keys the mass log mean exp(q k) = q mean + q^2 variance / 2."""
    if held is None:
        shares = mx.full((1, 1, pages.shape[2], 1), 1 / pages.shape[2], pages.dtype)
    else:
        shares = (held / mx.maximum(held.sum(axis=-1, keepdims=True), 1)).astype(pages.dtype)[..., None]
    mean = (pages * shares).sum(axis=2)
    if ranking == "page_mean":
        return mean
    return mx.concatenate([mean, ((pages - mean[:, :, None]).square() * shares).sum(axis=2)], axis=-1)


def best(scores: mx.array, count: int) -> mx.array:
    """(..., P) -> (..., count) places of the largest, in descending order."""
    if count < scores.shape[-1]:
        some = mx.argpartition(-scores, count - 1, axis=-1)[..., :count]
        order = mx.argsort(-mx.take_along_axis(scores, some, axis=-1), axis=-1)
        return mx.take_along_axis(some, order, axis=-1)
    return mx.argsort(-scores, axis=-1)


def interleave(ranked: mx.array, count: int) -> mx.array:
    """(H, B, R, m) of `count` pages by R queries, best first -> (H, B, m): the first of each query, then the second
    of each, and so on, without what came before."""
    rows, most = ranked.shape[2:]
    turns = (mx.arange(most)[None] * rows + mx.arange(rows)[:, None]).astype(mx.int32)
    turn = mx.full((*ranked.shape[:3], count), rows * most, mx.int32)
    turn = mx.put_along_axis(turn, ranked, mx.broadcast_to(turns, ranked.shape), axis=-1)
    return best(-turn.min(axis=2), most)


def first_tokens(tokens: mx.array, count: int, full: bool) -> mx.array:
    """(H, B, n) positions, -1 for none -> (H, B, count): the first ones.  full: there is no -1."""
    if full:
        return tokens[..., :count]
    places = mx.where(tokens < 0, tokens.shape[-1], mx.arange(tokens.shape[-1]))
    return mx.take_along_axis(tokens, mx.argpartition(places, count - 1, axis=-1)[..., :count], axis=-1)


def pages_for(fill: np.ndarray, tokens: int) -> int:
    """So many pages hold `tokens` tokens whichever they are; fill: (P,) tokens of each, 0 for none."""
    held = np.cumsum(np.sort(fill[fill > 0]))
    return int(np.searchsorted(held, tokens)) + 1
