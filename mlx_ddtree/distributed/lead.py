"""The target as rank 0 has it: whatever is done to it is done on every rank.

The other ranks decide nothing.  Drafts, trees, choices, sampling, timing and errors are rank 0's alone; the others are
told which caches to make, copy, trim, mark and take back, and which tokens to send through them.  What only changes
caches is told with the next forward.  A forward is built, told and sent off in one go: Ctrl-C waits, for else caches
would hold parts of one that the others never heard of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, finalize

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.distributed.ranks import Leader, uninterrupted
from mlx_ddtree.distributed.shard_target import ShardTarget, send_off
from mlx_ddtree.distributed.traffic import Traffic
from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.kernels.rope import Positions
from mlx_ddtree.target.marks import Mark
from mlx_ddtree.target.rank_traffic import RankTraffic
from mlx_ddtree.target.rows import Rows, TreeRows
from mlx_ddtree.target.views import Pending


class LeadTarget(ShardTarget):
    """Caches and marks have numbers by which the other ranks know theirs; who drops one here drops it there."""

    def __init__(self, model: nn.Module, leader: Leader, pipeline: bool = False) -> None:
        self.leader = leader
        self._index = leader.loaded
        leader.loaded += 1
        finalize(self, leader.tell, "unload", self._index).atexit = False
        self._caches: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # by the first layer's cache
        self._told_kernels = NO_KERNELS
        super().__init__(model, leader.group, pipeline)
        self.traffic = Traffic(leader)

    # What takes part in a forward.

    @uninterrupted()
    def forward(self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0) -> tuple[mx.array, mx.array | None]:
        number = self._number(cache)
        positions = at[0].tolist() if isinstance(at, mx.array) else at
        shared = self.share(token_ids)
        hidden, features = self.run(shared, cache, at)
        self.traffic.count(hidden, tokens=4 * token_ids.size, features=self._exchanged(features))
        self._tell_kernels()
        self.leader.send("forward", number, token_ids.shape[1], positions)
        send_off(shared, hidden, features)
        return hidden, features

    @uninterrupted()
    def forward_rows(
        self, token_ids: mx.array, rows: Rows, cache: Sequence[Any]
    ) -> tuple[mx.array, mx.array | None, Pending]:
        if rows.alone:
            return super().forward_rows(token_ids, rows, cache)
        assert isinstance(rows, TreeRows)  # several continuations are refused before they begin
        number = self._number(cache)
        hidden, features, pending = super().forward_rows(token_ids, rows, cache)
        self.traffic.count(hidden, features=self._exchanged(features))
        self._tell_kernels()
        tree = rows.tree
        nodes = tree.token_ids.tolist(), tree.parents.tolist(), tree.depths.tolist()
        self.leader.send("tree", number, *nodes, token_ids[0].tolist(), rows.start, rows.gap)
        send_off(hidden, features)
        return hidden, features, _Told(pending, partial(self.leader.tell, "commit", number))

    def _tell_kernels(self) -> None:
        if self.kernels is not self._told_kernels:
            sets, self._told_kernels = self.kernels.sets.items(), self.kernels
            self.leader.tell("kernels", self._index, {rows: list(kernels.names) for rows, kernels in sets})

    def _exchanged(self, features: mx.array | None) -> int:
        """Bytes of features that ranks have to bring together: in a pipeline, each tapped layer stands on one."""
        return features.nbytes if self.pipeline and features is not None else 0

    @property
    def rank_traffic(self) -> RankTraffic:
        return self.traffic.counted

    def when_lost(self, tell: Callable[[str], None]) -> None:
        self.leader.watch.on_lost.append(tell)

    # What only changes caches.

    def make_cache(self) -> list[Any]:
        return self._known(super().make_cache(), "cache", self._index)

    def copy_cache(self, cache: Sequence[Any]) -> list[Any]:
        return self._known(super().copy_cache(cache), "copy", self._number(cache))

    @uninterrupted()
    def trim(self, cache: Sequence[Any], rows: int) -> None:
        super().trim(cache, rows)
        self.leader.tell("trim", self._number(cache), rows)

    def fit(self, cache: Sequence[Any]) -> None:
        super().fit(cache)
        self.leader.tell("fit", self._number(cache))

    @uninterrupted()
    def mark(self, cache: Sequence[Any]) -> Mark:
        marked = _Mark(super().mark(cache))
        marked.number = next(self.leader.numbers)
        self.leader.tell("mark", marked.number, self._number(cache))
        finalize(marked, self.leader.tell, "forget", marked.number).atexit = False
        return marked

    @uninterrupted()
    def fit_mark(self, cache: Sequence[Any], marked: Mark) -> None:
        assert isinstance(marked, _Mark)
        super().fit_mark(cache, marked)
        self.leader.tell("fit_mark", self._number(cache), marked.number)

    @uninterrupted()
    def rewind(self, cache: Sequence[Any], marked: Mark) -> None:
        assert isinstance(marked, _Mark)
        super().rewind(cache, marked)
        self.leader.tell("rewind", self._number(cache), marked.number)

    def tap(self, taps: Sequence[int]) -> None:
        super().tap(taps)
        if self.pipeline:  # else hidden states are whole here
            self.leader.tell("taps", self._index, list(taps))

    @uninterrupted()
    def _known(self, cache: list[Any], *order: Any) -> list[Any]:
        """A cache that the others have, too."""
        self._caches[cache[0]] = number = next(self.leader.numbers)
        self.leader.tell(*order, number)
        finalize(cache[0], self.leader.tell, "drop", number).atexit = False
        return cache

    def _number(self, cache: Sequence[Any]) -> int:
        try:
            return self._caches[cache[0]]
        except KeyError:
            raise OptionError(
                "the other ranks have no such cache: on several machines use mlx_ddtree.make_prompt_cache(pair), and "
                "Session.fork to copy it"
            ) from None


class _Mark(list[tuple[Any, ...]]):
    """A mark that the others have, too."""

    number: int


class _Told(Pending):
    """Rows whose commit happens on every rank."""

    def __init__(self, pending: Pending, tell: Any) -> None:
        super().__init__(pending.views, pending.gather)
        self._tell = tell

    @uninterrupted()
    def commit(self, path: Sequence[int]) -> None:
        super().commit(path)
        self._tell([int(node) for node in path])
