"""sharded_load: a pair whose target stands on all machines that mlx.launch has started."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import mlx.core as mx

from mlx_ddtree.distributed.follow import follow
from mlx_ddtree.distributed.lead import LeadTarget
from mlx_ddtree.distributed.ranks import Follower, Leader, join
from mlx_ddtree.distributed.shard import load_shard
from mlx_ddtree.errors import MlxDdtreeError, OptionError, RankError
from mlx_ddtree.hub.load import LoadedTarget, load, load_with
from mlx_ddtree.pair import Pair


def sharded_load(
    target: str | None = None,
    draft: str | bool | None = None,
    *,
    pipeline: bool = False,
    revision: str | None = None,
    draft_revision: str | None = None,
    adapter_path: str | None = None,
    trust_remote_code: bool = False,
    kernels: str = "auto",
    draft_window: int | None = None,
) -> Pair:
    """`mlx_ddtree.load` under mlx.launch: every rank loads its part of the target, rank 0 the drafter as well.

    Only rank 0 returns.  On the others the call does what rank 0 needs of them until rank 0's program ends, then ends
    theirs (SystemExit).  A process that was not started as one of several loads as always.

    pipeline: give every rank whole layers instead of a part of each; where mlx-lm can.

    Raises what `load` raises; RankError where a rank is missing or cannot load.
    """
    same: dict[str, Any] = {"draft_revision": draft_revision, "kernels": kernels, "draft_window": draft_window}
    ranks = join()
    if ranks is None:
        where: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        return load(target, draft, adapter_path=adapter_path, **where, **same)
    if isinstance(ranks, Follower):
        sys.exit(follow(ranks))
    if adapter_path is not None:
        raise OptionError("adapters cannot be split over several machines: fuse them first (mlx_lm.fuse)")

    def read() -> LoadedTarget:
        return lead(ranks, target, revision, trust_remote_code, pipeline)

    return load_with(read, target, draft, **same)


def lead(
    leader: Leader, name: str | None, revision: str | None, trust_remote_code: bool, pipeline: bool
) -> LoadedTarget:
    """Load on all ranks at once."""
    leader.send("load", leader.loaded, name, revision, trust_remote_code, pipeline)
    try:
        loaded = load_shard(
            name,
            revision,
            trust_remote_code,
            group=leader.group,
            pipeline=pipeline,
            adapt=lambda model: LeadTarget(model, leader, pipeline),
        )
    except MlxDdtreeError:
        with suppress(RankError):  # theirs is the same
            leader.answers()
        raise
    memory = [{"weights": mx.get_active_memory(), "peak": mx.get_peak_memory()}, *leader.answers()]
    loaded.notes |= {"ranks": leader.size, "split": "pipeline" if pipeline else "tensor", "memory_bytes": memory}
    return loaded
