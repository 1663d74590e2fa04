"""What every rank but rank 0 does: to its shard, what rank 0 does to its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import wired_limit

from mlx_ddtree.distributed.ranks import Follower
from mlx_ddtree.distributed.shard import load_shard
from mlx_ddtree.distributed.shard_target import ShardTarget, send_off
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.kernels.registry import kernel_choice
from mlx_ddtree.target.marks import Mark
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import Pending
from mlx_ddtree.tree import DraftTree

ROWS_BETWEEN_TIDYING = 2048


def follow(ranks: Follower) -> int:
    """Obey until rank 0 stops; the process's exit status."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all ranks, and rank 0 decides
    try:
        with ExitStack() as stack:
            shard = _Shard(ranks, stack)
            for name, *arguments in ranks.orders():
                getattr(shard, name)(*arguments)
    except Exception as error:
        ranks.watch.await_news()  # perhaps another rank's end has caused it
        ranks.watch.report(f"rank {ranks.rank} failed: {type(error).__name__}: {error}")
        raise
    return 0


@dataclass
class _Cache:
    """A cache of rank 0's, here; pending: the rows of its last verification."""

    target: ShardTarget
    layers: list[Any]
    pending: Pending | None = None


class _Shard:
    """This rank's part of rank 0's targets.  The public methods are the orders that distributed/lead.py gives."""

    def __init__(self, ranks: Follower, stack: ExitStack) -> None:
        self._ranks = ranks
        self._stack = stack
        self._rows = 0
        self._targets: dict[int, ShardTarget] = {}
        self._caches: dict[int, _Cache] = {}
        self._marks: dict[int, Mark] = {}

    def load(self, index: int, name: str | None, revision: str | None, trust_remote_code: bool, pipeline: bool) -> None:
        group = self._ranks.group

        def adapt(model: nn.Module) -> ShardTarget:
            self._targets[index] = ShardTarget(model, group, pipeline)
            return self._targets[index]

        try:
            load_shard(name, revision, trust_remote_code, group=group, pipeline=pipeline, adapt=adapt)
        except MlxDdtreeError as error:
            self._ranks.answer(error=str(error))
            return
        self._stack.enter_context(wired_limit(self._targets[index].model))
        self._ranks.answer({"weights": mx.get_active_memory(), "peak": mx.get_peak_memory()})

    def unload(self, index: int) -> None:
        self._targets.pop(index, None)

    def forward(self, number: int, rows: int, at: int | list[int]) -> None:
        self._tidy(rows)
        cache, places = self._caches[number], mx.array([at]) if isinstance(at, list) else at
        shared = cache.target.share(mx.zeros((1, rows), mx.int32))
        send_off(shared, *cache.target.run(shared, cache.layers, places))

    def _tidy(self, rows: int) -> None:
        """Give unused memory back now and then; rank 0 does so after every chunk of a prompt."""
        self._rows += rows
        if self._rows >= ROWS_BETWEEN_TIDYING:
            self._rows = 0
            mx.clear_cache()

    def tree(
        self,
        number: int,
        ids: list[int],
        parents: list[int],
        depths: list[int],
        tokens: list[int],
        start: int,
        gap: int,
    ) -> None:
        self._tidy(len(tokens))
        cache = self._caches[number]
        weights = np.zeros(len(ids), np.float32)
        tree = DraftTree(np.array(ids, np.int32), np.array(parents, np.int32), np.array(depths, np.int32), weights)
        rows = TreeRows(tree, start, len(tokens), gap)
        hidden, features, cache.pending = cache.target.forward_rows(mx.array([tokens]), rows, cache.layers)
        send_off(hidden, features)

    def commit(self, number: int, path: list[int]) -> None:
        cache = self._caches[number]
        assert cache.pending is not None
        cache.pending.commit(path)
        cache.pending = None

    def cache(self, index: int, number: int) -> None:
        if (target := self._targets.get(index)) is not None:  # which this rank may have failed to load
            self._caches[number] = _Cache(target, target.make_cache())

    def copy(self, other: int, number: int) -> None:
        cache = self._caches[other]
        self._caches[number] = _Cache(cache.target, cache.target.copy_cache(cache.layers))

    def drop(self, number: int) -> None:
        self._caches.pop(number, None)

    def trim(self, number: int, rows: int) -> None:
        self._caches[number].target.trim(self._caches[number].layers, rows)

    def fit(self, number: int) -> None:
        self._caches[number].target.fit(self._caches[number].layers)

    def mark(self, marked: int, number: int) -> None:
        self._marks[marked] = self._caches[number].target.mark(self._caches[number].layers)

    def fit_mark(self, number: int, marked: int) -> None:
        self._caches[number].target.fit_mark(self._caches[number].layers, self._marks[marked])

    def rewind(self, number: int, marked: int) -> None:
        self._caches[number].target.rewind(self._caches[number].layers, self._marks[marked])

    def forget(self, marked: int) -> None:
        del self._marks[marked]

    def kernels(self, index: int, names: dict[str, Sequence[str]]) -> None:
        self._targets[index].kernels = kernel_choice({int(rows): chosen for rows, chosen in names.items()})

    def taps(self, index: int, taps: list[int]) -> None:
        self._targets[index].taps = tuple(taps)
