"""Which token stands in which page: the part that every way of forming pages shares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.float32]
Tokens = NDArray[np.int32]


class PageTable:
    """The keys of tokens 0, 1, 2, ... and the pages that hold them.

    A page's tokens stand in its first slots.  Page numbers are stable; a page that has become empty is the next to be
    used again.  Deleted tokens keep their number, which nothing else ever gets.
    """

    def __init__(self, dim: int, page_size: int) -> None:
        self.dim, self.page_size = dim, page_size
        self._keys = np.zeros((0, dim), np.float32)
        self._page_of = np.zeros(0, np.int32)
        self._members = np.zeros((0, page_size), np.int32)
        self._changed_at = np.zeros(0, np.int64)
        self.clock = 0  # changes so far
        self.num_tokens = 0  # deleted ones included
        self.num_pages = 0  # empty ones included
        self._empty: list[int] = []

    @property
    def keys(self) -> Keys:
        """(n, D), also of deleted tokens."""
        return self._keys[: self.num_tokens]

    @property
    def page_of(self) -> Tokens:
        """(n,) page of every token, -1 where it was deleted."""
        return self._page_of[: self.num_tokens]

    @property
    def pages(self) -> Tokens:
        """(P, page_size) token numbers, -1 in free slots; a view, which changes with the table."""
        return self._members[: self.num_pages]

    @property
    def fill(self) -> NDArray[np.int64]:
        """(P,) tokens of every page."""
        return np.count_nonzero(self.pages >= 0, axis=1)

    def changed_since(self, clock: int) -> Tokens:
        """Pages whose tokens changed since the clock stood there, ascending."""
        return np.flatnonzero(self._changed_at[: self.num_pages] > clock).astype(np.int32)

    def add_keys(self, keys: Keys) -> Tokens:
        """(m, D) -> the numbers of these tokens, which stand in no page yet."""
        keys = np.asarray(keys, np.float32)
        if keys.ndim != 2 or keys.shape[1] != self.dim:
            raise ValueError(f"keys of shape {keys.shape}, but this index takes (n, {self.dim})")
        first, self.num_tokens = self.num_tokens, self.num_tokens + len(keys)
        self._keys = grown(self._keys, self.num_tokens, 0)
        self._page_of = grown(self._page_of, self.num_tokens, -1)
        self._keys[first : self.num_tokens] = keys
        return np.arange(first, self.num_tokens, dtype=np.int32)

    def live(self, tokens: NDArray[np.integer]) -> Tokens:
        """The numbers, each once and ascending; raises KeyError when one is in no page."""
        unique = np.unique(np.asarray(tokens, np.int64))
        known = (unique >= 0) & (unique < self.num_tokens)
        known[known] = self._page_of[unique[known]] >= 0
        if not known.all():
            raise KeyError(f"no token {unique[~known][0]} in the index")
        return unique.astype(np.int32)

    def new_pages(self, count: int) -> Tokens:
        """Numbers of that many empty pages."""
        reused = [self._empty.pop() for _ in range(min(count, len(self._empty)))]
        first, self.num_pages = self.num_pages, self.num_pages + count - len(reused)
        self._members = grown(self._members, self.num_pages, -1)
        self._changed_at = grown(self._changed_at, self.num_pages, 0)
        return np.array([*reused, *range(first, self.num_pages)], np.int32)

    def write(self, pages: NDArray[np.integer], groups: list[Tokens]) -> None:
        """Give every page the tokens of its group and no others.  Tokens that stood there and are in no group must
        get another page before the table is used again."""
        for page, group in zip(pages.tolist(), groups, strict=True):
            old = self._members[page]
            if np.array_equal(old[: len(group)], group) and (len(group) == self.page_size or old[len(group)] < 0):
                self._page_of[group] = page
                continue
            self._members[page] = -1
            self._members[page, : len(group)] = group
            self._page_of[group] = page
            self._touch(page)
            if not len(group):
                self._empty.append(page)

    def append(self, page: int, token: int) -> None:
        """Put a token into the first free slot of a page that has one."""
        slot = int(np.count_nonzero(self._members[page] >= 0))
        self._members[page, slot] = token
        self._page_of[token] = page
        self._touch(page)

    def replace(self, token: int, other: int) -> None:
        """Put `other`, which is in no page, into the slot of `token`, which then is in none."""
        page = int(self._page_of[token])
        self._members[page][self._members[page] == token] = other
        self._page_of[other], self._page_of[token] = page, -1
        self._touch(page)

    def remove(self, tokens: Tokens) -> None:
        """Take live tokens, each given once, out of their pages; the rest of a page closes up."""
        for page in np.unique(self._page_of[tokens]).tolist():
            members = self._members[page]
            kept = members[(members >= 0) & ~np.isin(members, tokens)]
            self.write(np.array([page]), [kept])
        self._page_of[tokens] = -1

    def _touch(self, page: int) -> None:
        self.clock += 1
        self._changed_at[page] = self.clock


def grown(array: NDArray, length: int, filler: float) -> NDArray:
    """The array, or a copy of at least twice its length where it is shorter than `length`."""
    if length <= len(array):
        return array
    larger = np.full((max(length, 2 * len(array)), *array.shape[1:]), filler, array.dtype)
    larger[: len(array)] = array
    return larger
