"""From a target that can be loaded and the name of a drafter to a Pair."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import ConfigError, MlxDdtreeError, PairError
from mlx_ddtree.hub.cached import Snapshot, cached_models
from mlx_ddtree.hub.fetch import DRAFTER_FILES, commit_of, fetch
from mlx_ddtree.hub.load_target import LoadedTarget, look_at_target, try_target
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.hub.registry import find_drafter, is_same_model
from mlx_ddtree.pair import Pair


def assemble_pair(
    read_target: Callable[[], LoadedTarget],
    target: str | None,
    draft: str | bool | None,
    *,
    revision: str | None,
    draft_revision: str | None,
    trust_remote_code: bool,
    kernels: str,
    draft_window: int | None,
) -> Pair:
    """The pair of a target that `read_target` loads and its drafter; the options are those of `mlx_ddtree.load`.

    1. The target's name or folder is looked at, so that a mistake there is called that.
    2. The drafter is loaded, if one is named or known: small, so what is wrong with it need not wait for the target's
       weights.  Where it cannot be loaded, the target is looked at more closely before the drafter is blamed.
    3. The target is loaded.
    """
    look_at_target(target, revision)
    drafter = None
    notes: dict[str, Any] = {}
    if draft is not False:
        try:
            name = known_drafter(target, draft)
            if name is not None:
                drafter, notes = _load_drafter(name, draft_revision)
                _warn_of_another_target(drafter, name, target)
        except MlxDdtreeError:
            try_target(target, revision, trust_remote_code)
            raise
    loaded = read_target()
    if drafter is not None:
        if drafter.config.quantization is None:
            # The drafter follows the target's arithmetic, whatever type it is stored in.
            drafter.set_dtype(loaded.target.embed(mx.array([[0]])).dtype)
        if draft_window is not None:
            drafter.limit_window(draft_window)
            notes["drafter_config"] = drafter.config.describe()
        mx.eval(drafter.parameters())
    return Pair(loaded.target, drafter, loaded.tokenizer, loaded.notes | notes, kernels)


def drafter_name(target: str | None, draft: str | bool | None) -> str:
    """The drafter's repository or folder, as `known_drafter` says.  Raises PairError where none is known."""
    found = known_drafter(target, draft)
    if found is None:
        raise PairError(
            f"no public drafter is known for {target!r}, and none on this machine names it as its target: name one "
            "(draft=... / --draft-model), or train one (mlx_ddtree.train)"
        )
    return found


def known_drafter(target: str | None, draft: str | bool | None) -> str | None:
    """The drafter's repository or folder: the one that is named, the embedded one, or the one known for the target."""
    if isinstance(draft, str):
        return draft
    if target is None:
        return str(DEMO / "drafter")
    return find_drafter(target) or drafter_here(target, cached_models())


def drafter_here(target: str, cached: Sequence[Snapshot]) -> str | None:
    """A drafter among what is on this machine whose own file says that it was trained for this target, as speculators'
    files do."""
    for snapshot in cached:
        if "speculators_config" not in snapshot.config:
            continue
        try:
            named = DrafterConfig.from_dict(snapshot.config).target
        except ConfigError:  # a layout that is not understood here
            continue
        if named is not None and is_same_model(named, target):
            return snapshot.repository
    return None


def _warn_of_another_target(drafter: DFlashDrafter, name: str, target: str | None) -> None:
    """A drafter drafts badly for a target that it was not trained for, and nothing else would say so."""
    trained_for = drafter.config.target
    if target is not None and trained_for is not None and not is_same_model(trained_for, target):
        logging.getLogger(__name__).warning("warning: %s was trained for %s, not for %s", name, trained_for, target)


def _load_drafter(name: str, revision: str | None) -> tuple[DFlashDrafter, dict[str, Any]]:
    """The drafter, not evaluated, and its notes."""
    folder = fetch(name, revision, DRAFTER_FILES)
    drafter = load_drafter(folder)
    notes = {
        "drafter": name,
        "drafter_folder": str(folder),
        "drafter_revision": commit_of(folder),
        "drafter_config": drafter.config.describe(),
    }
    logging.getLogger(__name__).info("drafter %s: %s", folder, notes["drafter_config"])
    return drafter, notes
