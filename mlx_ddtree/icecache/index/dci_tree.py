"""The DCI tree (arXiv 2604.10539): keys in levels, each under its nearest key one level up, its leaves pages.

A share r1 of the keys stands on level 1, of these a share r2 on level 2, and so on; the keys of the highest level hang
under the root.  The children of one key are a cell, and a cell's keys stand in pages of its own.

Two things differ from the published code.  A cell is cut into pages by bisection, not in the order of one random
projection: with a single projection that order is close to random.  And nothing is normalised or projected once and
for all, so a key longer than all before it makes nothing invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.icecache.index.cuts import Groups, by_bisection
from mlx_ddtree.icecache.index.pages import Pages
from mlx_ddtree.icecache.index.products import product
from mlx_ddtree.icecache.index.ranking import IndexRanking, first_pages
from mlx_ddtree.icecache.index.table import Keys, Tokens, grown

ROOT, NOBODY = -1, -2
BLOCK = 1024  # rows of a product at a time


class DciTree(Pages):
    """Pages of the cells of a DCI tree; equal seeds and calls give equal pages.

    r1, r2: share of the keys on level 1, and of each further level of the one below.
    field_of_view: keys of a level whose cells a descent looks into, at least; 0.0015 of all keys where that is more.
    cut: how a cell is cut into pages.
    """

    def __init__(
        self,
        dim: int,
        page_size: int = 16,
        ranking: IndexRanking = "tree",
        seed: int = 0,
        *,
        r1: float = 0.01,
        r2: float = 0.2,
        field_of_view: int = 30,
        cut: Callable[[Keys, int], Groups] = by_bisection,
    ) -> None:
        super().__init__(dim, page_size, ranking)
        self.r1, self.r2, self.field_of_view, self._into_groups = r1, r2, field_of_view, cut
        self.visited = 0  # keys that the last descent scored, over all queries
        self._random = np.random.default_rng(seed)
        self._level = np.zeros(0, np.int8)
        self._parent = np.zeros(0, np.int32)
        self._squares = np.zeros(0, np.float32)
        self._longest = np.float32(0)  # squared length
        self._owner = np.zeros(0, np.int32)  # whose cell a page belongs to
        self.top = 0

    @property
    def level(self) -> NDArray[np.int8]:
        """(n,) level of every token; 0 is the finest."""
        return self._level[: self.table.num_tokens]

    @property
    def parent(self) -> Tokens:
        """(n,) token one level up whose cell a token is in, ROOT on the highest level."""
        return self._parent[: self.table.num_tokens]

    # Building

    def _build(self, tokens: Tokens) -> None:
        if not len(tokens):
            return
        self._note(tokens)
        sizes = [len(tokens)]
        while sizes[-1] > self.field_of_view:
            sizes.append(max(1, round(sizes[-1] * (self.r2 if sizes[1:] else self.r1))))
        self.top = len(sizes) - 1
        shuffled = self._random.permutation(tokens)
        for level, size in enumerate(sizes[1:], 1):
            self._level[shuffled[:size]] = level
        for level in range(self.top):
            below, above = (np.flatnonzero(self.level == x).astype(np.int32) for x in (level, level + 1))
            for i in range(0, len(below), BLOCK):
                block = below[i : i + BLOCK]
                self._parent[block] = above[self._similarity(block, above).argmax(axis=1)]
        order = np.argsort(self.parent, kind="stable").astype(np.int32)
        owners, starts = np.unique(self.parent[order], return_index=True)
        for owner, cell in zip(owners.tolist(), np.split(order, starts[1:]), strict=True):
            self._cut(owner, cell)

    def _note(self, tokens: Tokens) -> None:
        """Room for what is known of new tokens; their lengths."""
        count = self.table.num_tokens
        self._level, self._parent = grown(self._level, count, 0), grown(self._parent, count, ROOT)
        self._squares = grown(self._squares, count, 0)
        if len(tokens):
            self._squares[tokens] = (self.table.keys[tokens] ** 2).sum(axis=1)
            self._longest = max(self._longest, self._squares[tokens].max())

    def _lift(self, tokens: Tokens) -> Keys:
        """The coordinate that makes all keys equally long: sqrt(c^2 - |k|^2), c the longest."""
        return np.sqrt(np.maximum(self._longest - self._squares[tokens], 0))

    def _similarity(self, tokens: Tokens, others: Tokens) -> Keys:
        """(n, m) inner products of lifted keys: c^2 less half their squared distance."""
        keys = self.table.keys
        return product(keys[tokens], keys[others].T) + np.outer(self._lift(tokens), self._lift(others))

    # Cells

    def _cell_pages(self, owner: int) -> NDArray[np.int64]:
        return np.flatnonzero(self._owner[: self.table.num_pages] == owner)

    def _cell(self, owner: int) -> Tokens:
        """The children of a token, or of ROOT."""
        members = self.table.pages[self._cell_pages(owner)]
        return members[members >= 0]

    def _cut(self, owner: int, cell: Tokens) -> None:
        """Make these the cell's tokens, in pages anew."""
        table, pages = self.table, self._cell_pages(owner)
        groups = [np.sort(cell[group]) for group in self._into_groups(table.keys[cell], self.page_size)]
        new = table.new_pages(max(len(groups) - len(pages), 0))
        self._owner = grown(self._owner, table.num_pages, NOBODY)
        self._owner[new] = owner
        pages = np.concatenate([pages, new])
        table.write(pages, groups + [cell[:0]] * (len(pages) - len(groups)))
        self._owner[pages[len(groups) :]] = NOBODY

    def _add(self, owner: int, tokens: Tokens) -> None:
        """Each to the nearest page of the cell that has room; the cell is cut anew where they do not fit."""
        table, pages = self.table, self._cell_pages(owner)
        members = table.pages[pages]
        room = np.count_nonzero(members < 0, axis=1)
        if room.sum() < len(tokens):
            return self._cut(owner, np.concatenate([members[members >= 0], tokens]))
        means = self._means.now()[pages]
        distances = (means**2).sum(axis=1) - 2 * product(table.keys[tokens], means.T)
        for token, row in zip(tokens.tolist(), distances, strict=True):
            best = int(np.where(room > 0, row, np.inf).argmin())
            table.append(int(pages[best]), token)
            room[best] -= 1
        return None

    # Coming and going

    def _insert(self, tokens: Tokens) -> None:
        self._note(tokens)
        higher = [token for token in tokens.tolist() if self._promote(token)]
        finest = tokens[~np.isin(tokens, higher)]
        if not len(finest):
            return
        parents = self._find_parents(finest, 0)
        self._parent[finest] = parents
        for owner in np.unique(parents).tolist():
            self._add(owner, finest[parents == owner])

    def _promote(self, token: int) -> bool:
        """Draw the token's level; place it and return True when that is above the finest."""
        draw, level = self._random.random(), 0
        highest = self.top + (np.count_nonzero(self._cell(ROOT)) > self.field_of_view)
        share = self.r1
        while level < highest and draw < share:
            level, share = level + 1, share * self.r2
        while level < self.top and not self._stand_on(level + 1):  # all were deleted: this one fills the gap
            level += 1
        if not level:
            return False
        self._level[token] = level
        if level > self.top:  # all that hung under the root gets this parent
            self._parent[self._cell(ROOT)] = token
            self._owner[self._cell_pages(ROOT)] = token
            self.top = level
        one = np.array([token], np.int32)
        self._parent[token] = self._find_parents(one, level)[0]
        self._add(int(self._parent[token]), one)
        return True

    def _stand_on(self, level: int) -> bool:
        """Is there a token on this level?"""
        return bool(np.any((self.level == level) & (self.table.page_of >= 0)))

    def _find_parents(self, tokens: Tokens, level: int) -> Tokens:
        """Nearest keys one level above `level`, as a descent finds them."""
        if level == self.top:
            return np.full(len(tokens), ROOT, np.int32)
        for width in self._widths():
            members, scores, _ = self._descend(self.table.keys[tokens], self._lift(tokens), level + 1, width)
            if len(members) and (scores.max(axis=1) > -np.inf).all():
                break
        return members[scores.argmax(axis=1)]

    def _delete(self, tokens: Tokens) -> None:
        for token in tokens.tolist():
            self._take_out(token)
        if not len(self._cell(ROOT)):
            self.top = 0

    def _take_out(self, token: int) -> None:
        """A token leaves; the nearest of its children takes its place, and one of that one's children its."""
        table, children = self.table, self._cell(token) if self._level[token] else np.zeros(0, np.int32)
        if not len(children):
            owner = int(self._parent[token])
            page = int(table.page_of[token])
            table.remove(np.array([token], np.int32))
            if table.pages[page, 0] < 0:
                self._owner[page] = NOBODY
            cell = self._cell(owner)
            if len(self._cell_pages(owner)) > -(-len(cell) // self.page_size) + 1:
                self._cut(owner, cell)
            return
        heir = int(children[self._similarity(np.array([token], np.int32), children)[0].argmax()])
        self._take_out(heir)
        self._parent[self._cell(token)] = heir
        self._owner[self._cell_pages(token)] = heir
        table.replace(token, heir)
        self._level[heir], self._parent[heir] = self._level[token], self._parent[token]

    # Descents

    def search(self, queries: Keys, count: int) -> Tokens:
        queries = np.asarray(queries, np.float32)
        if self.ranking != "tree":
            return super().search(queries, count)
        enough = min(count, int(np.count_nonzero(self.table.fill)))
        for width in self._widths():
            scores = self._descend(queries, np.zeros(len(queries), np.float32), 0, width)[2]
            if (np.count_nonzero(scores > -np.inf, axis=1) >= enough).all():
                break
        return first_pages(scores, count)

    def _widths(self) -> Iterator[int]:
        """How many keys' cells to look into; more and more for those to whom it was not enough."""
        width = max(self.field_of_view, int(0.0015 * self.table.num_tokens))
        yield width
        while width < self.table.num_tokens:
            width *= 4
            yield width

    def _descend(
        self, queries: Keys, lifts: Keys, last: int, width: int
    ) -> tuple[Tokens, NDArray[np.float32], NDArray[np.float32]]:
        """From the root to level `last`, of every level the cells of the `width` best keys of the one above.

        queries (R, D), with lifted coordinates (R,) -> the tokens met on the last level (U,) and their scores (R, U),
        -inf where only other queries met them; the best score that every page gave on the way (R, P).
        """
        table, rows = self.table, len(queries)
        owner = self._owner[: table.num_pages]
        best = np.full((rows, table.num_pages), -np.inf, np.float32)
        wanted = np.zeros((rows, table.num_tokens + 2), bool)  # by owner; NOBODY and ROOT are the last two
        wanted[:, ROOT] = True
        parents = np.zeros(table.num_tokens + 2, bool)
        parents[owner] = True
        self.visited = 0
        for level in range(self.top, last - 1, -1):
            met = wanted[:, owner]
            pages = np.flatnonzero(met.any(axis=0))
            members = table.pages[pages]
            met = met[:, pages, None] & (members >= 0)
            self.visited += int(np.count_nonzero(met))
            tokens = np.maximum(members, 0).ravel()
            scores = product(queries, table.keys[tokens].T)
            if lifts.any():
                scores += np.outer(lifts, self._lift(tokens))
            scores = np.where(met, scores.reshape(met.shape), -np.inf)
            best[:, pages] = scores.max(axis=-1)
            scores = scores.reshape(rows, -1)
            if level > last:
                wanted[:] = False
                hopeful = np.where(parents[tokens], scores, -np.inf)
                chosen = np.argpartition(-hopeful, min(width, len(tokens)) - 1, axis=1)[:, :width]
                hopeless = np.isneginf(np.take_along_axis(hopeful, chosen, axis=1))
                # NOBODY's pages are empty, so wanting them adds nothing.
                np.put_along_axis(wanted, np.where(hopeless, table.num_tokens, tokens[chosen]), True, axis=1)
        return tokens, scores, best
