"""DeFT's first phase (arXiv 2404.00242, section 3): which rows of keys and values are read for which queries.

Nodes are put in depth-first order, and queries in that of their nodes.  Then the queries that see a node are those of
its subtree and stand side by side, and so do those of neighbouring nodes: a group of the plan is a range of
rows and a range of queries, and two numbers a row say all that a mask would, for any number of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError

PlanKind = Literal["node", "node-chunk", "flatten"]
PLANS: tuple[PlanKind, ...] = ("node", "node-chunk", "flatten")
BLOCK = 128
"""Rows of a chunk or block, the paper's."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PrefixTree:
    """M nodes, each with a run of rows of keys and values, and Q queries at nodes.

    parents: (M,) int, parents[i] < i, -1 for a node that has none.
    lengths: (M,) rows of each node's run; a run may be empty.
    query_nodes: (Q,) where each query sits: it sees all rows of that node and of its ancestors.
    slots: (sum of lengths,) where the rows lie in the cache, node after node; None: in this order from 0 on.

    Raises OptionError if they do not make a tree.
    """

    parents: Ints
    lengths: Ints
    query_nodes: Ints
    slots: Ints | None = None

    def __post_init__(self) -> None:
        count = len(self.parents)
        if not count or not len(self.query_nodes):
            raise OptionError("a plan needs at least one node and one query")
        if len(self.lengths) != count or (self.lengths < 0).any():
            raise OptionError("give every node of a plan the length of its run, 0 or more")
        if (self.parents >= np.arange(count)).any() or (self.parents < -1).any():
            raise OptionError("parents of a plan's nodes must come before them (parents[i] < i, or -1)")
        if (self.query_nodes < 0).any() or (self.query_nodes >= count).any():
            raise OptionError(f"queries of a plan must sit at its nodes, 0 to {count - 1}")
        if self.slots is not None and len(self.slots) != self.lengths.sum():
            raise OptionError(f"the plan's runs have {self.lengths.sum()} rows, but {len(self.slots)} slots are given")

    @classmethod
    def behind(cls, context: int, parents: NDArray[np.integer]) -> PrefixTree:
        """A draft tree's rows (N,), each a query and a row of its own, behind `context` rows that all of them see.

        parents: -1 for every row without one (the root, padding).
        """
        ones = np.ones(len(parents), np.int64)
        return cls(
            np.concatenate([[-1], np.asarray(parents, np.int64) + 1]),
            np.concatenate([[context], ones]),
            np.arange(1, len(parents) + 1),
        )

    @cached_property
    def order(self) -> tuple[Ints, Ints]:
        """(M,) each node's place in depth-first order, and where its subtree ends in it."""
        parents, count = self.parents.tolist(), len(self.parents)
        sizes, places, free = [1] * count, [0] * count, [0] * (count + 1)
        for node in range(count - 1, -1, -1):  # free[-1], behind the last node, is for those without a parent
            if parents[node] >= 0:
                sizes[parents[node]] += sizes[node]
        for node, parent in enumerate(parents):
            places[node] = free[parent]
            free[parent] += sizes[node]
            free[node] = places[node] + 1
        return np.array(places), np.array(places) + np.array(sizes)

    @cached_property
    def path_lengths(self) -> Ints:
        """(M,) rows from the top to the end of each node's run."""
        total = self.lengths.tolist()
        for node, parent in enumerate(self.parents.tolist()):
            total[node] += total[parent] if parent >= 0 else 0
        return np.array(total)

    @property
    def rows_per_query(self) -> int:
        """Rows read if every query reads its own path."""
        return int(self.path_lengths[self.query_nodes].sum())

    @property
    def rows_per_path(self) -> int:
        """Rows read if every path that ends in a leaf is read by itself, for all its queries."""
        places, ends = self.order
        taken = np.zeros(len(places) + 1, np.int64)
        np.add.at(taken, places[self.query_nodes] + 1, 1)
        before = np.cumsum(taken)  # queries before each place
        own = np.bincount(self.query_nodes, minlength=len(places))
        below = before[ends] - before[places] - own
        return int(self.path_lengths[(own > 0) & (below == 0)].sum())


@dataclass(frozen=True)
class Plan:
    """G groups, each read once for all of its queries.

    slots: (K,) where the rows that somebody sees lie in the cache, in depth-first order.
    queries: (Q,) the queries in that order; ranges of queries below are ranges of this.
    rows: (G, 2) first row of each group in `slots`, and the end.
    takes: (G, 2) its queries.
    seen: (K, 2) the queries that see a row.
    """

    slots: Ints
    queries: Ints
    rows: Ints
    takes: Ints
    seen: Ints

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def loads(self) -> Ints:
        """(G,) rows of each group."""
        return self.rows[:, 1] - self.rows[:, 0]

    @property
    def kv_rows(self) -> int:
        """Rows read, again for every group that a cap on the queries made."""
        return int(self.loads.sum())

    @property
    def balance(self) -> float:
        """Rows of the largest group over those of the average one."""
        return float(self.loads.max() / self.loads.mean()) if len(self) else 1.0

    @property
    def partials(self) -> int:
        """Outputs of the groups, each of one query, that the second phase merges."""
        return int((self.takes[:, 1] - self.takes[:, 0]).sum())

    @cached_property
    def clear(self) -> Ints:
        """(G,) rows at the beginning of a group that all its queries see: they need no mask."""
        loads = self.loads
        ends = np.cumsum(loads)
        group = np.repeat(np.arange(len(self)), loads)
        place = np.arange(self.kv_rows) - np.repeat(ends - loads, loads)
        seen, takes = self.seen[self.rows[group, 0] + place], self.takes[group]
        hidden = (seen[:, 0] > takes[:, 0]) | (seen[:, 1] < takes[:, 1])
        first = loads.copy()
        np.minimum.at(first, group[hidden], place[hidden])
        return first

    @property
    def mask_elements(self) -> int:
        """Pairs of a row and a query for which a mask has to say something."""
        return int(((self.loads - self.clear) * (self.takes[:, 1] - self.takes[:, 0])).sum())

    def mask(self, group: int) -> NDArray[np.bool_]:
        """(queries, rows behind the clear ones) of a group: who sees what."""
        seen = self.seen[self.rows[group, 0] + self.clear[group] : self.rows[group, 1]]
        queries = np.arange(*self.takes[group])[:, None]
        return (seen[:, 0] <= queries) & (queries < seen[:, 1])

    def bits(self, group: int) -> NDArray[np.uint32]:
        """The mask as the paper packs it: (rows behind the clear ones, ceil(queries / 32)), query j in bit j % 32 of
        word j // 32."""
        mask = self.mask(group).T
        padded = np.zeros((len(mask), -(-mask.shape[1] // 32) * 32), np.bool_)
        padded[:, : mask.shape[1]] = mask
        return np.packbits(padded, axis=1, bitorder="little").view("<u4")


def make_plan(
    tree: PrefixTree,
    kind: PlanKind = "flatten",
    *,
    block: int = BLOCK,
    cap: int | None = None,
    breaks: Sequence[int] = (),
) -> Plan:
    """How to read the tree's rows.

    kind: 'node' makes a group of every run; 'node-chunk' cuts long runs; 'flatten' cuts the depth-first
        sequence of all rows, wherever runs end, into blocks of equal size (to a row), which need masks.
    block: rows of a chunk or block, at most.
    cap: queries of a group, at most; a group with more is read again for the rest (32 in the paper's kernel).
    breaks: nodes before which a block of 'flatten' ends: subtrees that have no query in common need no mask between
        them.

    Raises OptionError.
    """
    if kind not in PLANS:
        raise OptionError(f"unknown plan {kind!r}; choose one of {', '.join(PLANS)}")
    if block < 1 or (cap is not None and cap < 1):
        raise OptionError(f"a plan's block ({block}) and cap ({cap}) must be positive")
    places, ends = tree.order
    queries = np.argsort(places[tree.query_nodes], kind="stable")
    standing = places[tree.query_nodes][queries]
    sees = np.stack([np.searchsorted(standing, places), np.searchsorted(standing, ends)], axis=1)
    nodes = np.argsort(places)
    nodes = nodes[(tree.lengths[nodes] > 0) & (sees[nodes, 1] > sees[nodes, 0])]
    lengths, starts = tree.lengths[nodes], (np.cumsum(tree.lengths) - tree.lengths)[nodes]
    slots = _ranges(starts, lengths)
    seen = np.repeat(sees[nodes], lengths, axis=0)
    if kind == "flatten":
        ends_at = np.cumsum(lengths)[np.isin(nodes, breaks)] - lengths[np.isin(nodes, breaks)]
        stretches = np.diff(np.unique(np.concatenate([[0], ends_at, [len(slots)]])))
        rows = _cut(stretches, block)[0]
        reach = np.maximum.reduceat(seen[:, 1], rows[:, 0]) if len(rows) else np.empty(0, np.int64)
        takes = np.stack([seen[rows[:, 0], 0], reach], axis=1)
    else:
        rows, of = _cut(lengths, block if kind == "node-chunk" else None)
        takes = sees[nodes][of]
    if cap is not None:
        pieces, of = _cut(takes[:, 1] - takes[:, 0], cap)
        passed = np.cumsum(takes[:, 1] - takes[:, 0]) - (takes[:, 1] - takes[:, 0])
        rows, takes = rows[of], pieces + (takes[:, 0] - passed)[of][:, None]
    return Plan(slots if tree.slots is None else tree.slots[slots], queries, rows, takes, seen)


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """starts[0], starts[0] + 1, ... (lengths[0] of them), starts[1], ..."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def _cut(lengths: Ints, most: int | None) -> tuple[Ints, Ints]:
    """Ranges one behind the other, cut into as few equal pieces (to one) as have `most` or less.

    (pieces, 2) first and end of each, and (pieces,) the range that it belongs to.
    """
    counts = np.ones_like(lengths) if most is None else -(-lengths // most)
    of = np.repeat(np.arange(len(lengths)), counts)
    piece = _ranges(np.zeros_like(counts), counts)
    start = (np.cumsum(lengths) - lengths)[of]
    first, end = (start + (piece + i) * lengths[of] // counts[of] for i in (0, 1))
    return np.stack([first, end], axis=1), of
