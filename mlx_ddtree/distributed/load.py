"""load(): names or folders -> a Pair, on one machine or on all that mlx.launch has started."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import mlx.core as mx

from mlx_ddtree.distributed.follow import follow
from mlx_ddtree.distributed.lead import LeadTarget
from mlx_ddtree.distributed.ranks import Follower, Leader, join
from mlx_ddtree.distributed.shard import load_shard
from mlx_ddtree.errors import MlxDdtreeError, OptionError, RankError
from mlx_ddtree.hub.load_pair import assemble_pair
from mlx_ddtree.hub.load_target import LoadedTarget, load_target
from mlx_ddtree.pair import Pair

Name = str | os.PathLike[str]
"""A Hugging Face repository (owner/name) or a local folder."""
KERNELS = ("auto", "on", "off")


def load(
    target: Name | None = None,
    draft: Name | bool | None = None,
    *,
    pipeline: bool = False,
    revision: str | None = None,
    draft_revision: str | None = None,
    adapter_path: Name | None = None,
    trust_remote_code: bool = False,
    kernels: str = "auto",
    draft_window: int | None = None,
) -> Pair:
    """Load a target and its drafter.

    target: a Hugging Face repository or a local folder; None is the embedded demo pair, offline.
    draft: the drafter's repository or folder; None looks the target up among the public pairs; False loads no drafter.
    revision, draft_revision: branch, tag or commit of a repository.
    adapter_path: a folder that mlx_lm.lora has written, applied to the target.
    trust_remote_code: let the repository's own code make its model and tokenizer.
    kernels: 'auto' uses Metal kernels where they agree with MLX's operations and make verifications faster on this
        machine, which is found out once; 'on' wherever they agree; 'off' never.  $MLX_DDTREE_KERNELS overrules it.
    draft_window: tokens that the drafter sees, at most, so that drafting does not slow down with the context; None is
        what the checkpoint was trained with.  The output is the same, only acceptance can change.

    Under mlx.launch every rank loads its part of the target, and rank 0 the drafter as well.  Only rank 0 returns; on
    the others the call does what rank 0 needs of them until rank 0's program ends, then ends theirs (SystemExit).

    pipeline: give every rank whole layers instead of a part of each, where mlx-lm can; on one machine it does nothing.

    Raises OptionError, PairError (no drafter known, or one that does not fit), ConfigError, WeightsError and
    UnsupportedModelError, with what to do; RankError where a rank is missing or cannot load.
    """
    name = _text("target", target, "a repository (owner/name), a folder or None")
    if not isinstance(draft, bool):
        draft = _text("draft", draft, "a repository (owner/name), a folder, None or False")
    adapter = _text("adapter_path", adapter_path, "a folder or None")
    for option, value in (("revision", revision), ("draft_revision", draft_revision)):
        _text(option, value, "a branch, tag or commit, or None")
    _check_choices(kernels, draft_window)

    ranks = join()
    if isinstance(ranks, Follower):
        sys.exit(follow(ranks))
    if ranks is not None and adapter is not None:
        raise OptionError("adapters cannot be split over several machines: fuse them first (mlx_lm.fuse)")

    def read_target() -> LoadedTarget:
        if ranks is not None:
            return lead(ranks, name, revision, trust_remote_code, pipeline)
        return load_target(name, revision=revision, adapter_path=adapter, trust_remote_code=trust_remote_code)

    return assemble_pair(
        read_target,
        name,
        draft,
        revision=revision,
        draft_revision=draft_revision,
        trust_remote_code=trust_remote_code,
        kernels=kernels,
        draft_window=draft_window,
    )


def lead(
    leader: Leader, name: str | None, revision: str | None, trust_remote_code: bool, pipeline: bool
) -> LoadedTarget:
    """Load a target on all ranks at once.  Raises what `load_target` raises, and RankError."""
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
        with suppress(RankError):  # the other ranks fail for the same reason
            leader.answers()
        raise
    memory = [{"weights": mx.get_active_memory(), "peak": mx.get_peak_memory()}, *leader.answers()]
    loaded.notes |= {"ranks": leader.size, "split": "pipeline" if pipeline else "tensor", "memory_bytes": memory}
    return loaded


def _text(option: str, value: object, wanted: str) -> str | None:
    """A name or a path as text.  Raises OptionError, which names what is `wanted`, for anything else."""
    if value is None or isinstance(value, str):
        return value
    path = os.fspath(value) if isinstance(value, os.PathLike) else None
    if not isinstance(path, str):
        raise OptionError(f"load: {option} is {value!r}, but must be {wanted}")
    return path


def _check_choices(kernels: object, draft_window: object) -> None:
    if kernels not in KERNELS:
        raise OptionError(f"kernels={kernels!r} is unknown; choose one of {', '.join(KERNELS)}")
    if draft_window is None:
        return
    if not isinstance(draft_window, int) or isinstance(draft_window, bool):
        raise OptionError(f"draft_window is {draft_window!r}, not a number of tokens")
