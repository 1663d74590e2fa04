"""The public pairs: how large they are, what is here already, what fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub import HfApi

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.errors import ConfigError, UnsupportedModelError
from mlx_ddtree.hub.cached import Snapshot
from mlx_ddtree.hub.fetch import explain
from mlx_ddtree.hub.memory import Need
from mlx_ddtree.hub.names import BROUGHT, local_folder
from mlx_ddtree.hub.public_configs import PUBLIC_CONFIGS
from mlx_ddtree.hub.registry import KnownDrafter, find_pairs, is_same_model
from mlx_ddtree.hub.size import drafter_cache_bytes, model_size, table_bytes, usual_drafter, usual_drafter_bytes
from mlx_ddtree.target import TREE_FAMILIES


@dataclass(frozen=True)
class Variant:
    """A target with weights of one size.

    repository: where these weights are on this machine; None is computed from the config, for anybody's quantisation.
    """

    bits: int
    repository: str | None
    need: Need
    fits: bool


@dataclass(frozen=True)
class PublicPair:
    """One line of the list; parameters is None where neither the target's config is known nor the target here.

    verifies: whether the target's architecture takes drafters here; None where only loading it tells.
    """

    target: str
    drafter: str
    kind: str
    block: int | None
    why: str
    licence: str | None
    verifies: bool | None
    parameters: int | None
    drafter_here: bool
    variants: list[Variant]

    @property
    def fits(self) -> bool:
        return any(variant.fits for variant in self.variants)

    @property
    def here(self) -> list[str]:
        """Quantisations of the target that are on this machine."""
        return [variant.repository for variant in self.variants if variant.repository]

    def as_json(self) -> dict[str, Any]:
        """All facts, with every need's total."""
        record = asdict(self) | {"fits": self.fits}
        for written, variant in zip(record["variants"], self.variants, strict=True):
            written["need"]["total"] = variant.need.total
        return record


def public_pairs(
    words: Sequence[str], tokens: int, usable: int, cached: Sequence[Snapshot], drafter_bytes: Mapping[str, int]
) -> list[PublicPair]:
    """The registry's pairs whose names hold all `words`.

    tokens: of context, prompt and answer.  usable: bytes of memory.  cached: what this machine holds.
    drafter_bytes: sizes that the Hub told, by repository.
    """
    return [_pair(target, known, tokens, usable, cached, drafter_bytes) for target, known in find_pairs(words)]


def _pair(
    target: str,
    known: KnownDrafter,
    tokens: int,
    usable: int,
    cached: Sequence[Snapshot],
    drafter_bytes: Mapping[str, int],
) -> PublicPair:
    drafter = known.repository
    brought = local_folder(drafter) if drafter.startswith(BROUGHT) else None
    mine = None if brought is None else Snapshot(drafter, "", brought)
    here = []  # quantisations of the target
    for snapshot in cached:
        if snapshot.repository == drafter:
            mine = snapshot
        elif is_same_model(snapshot.repository, target):
            here.append(snapshot)
    config = PUBLIC_CONFIGS.get(target, {})
    if not config and here:
        config = here[0].config
    verifies = True if config.get("model_type") in TREE_FAMILIES else None
    about = (target, drafter, known.kind, known.block, known.why, known.licence, verifies)
    try:
        sizes = model_size(config)
        parts = _drafter_parts(config, known, mine, drafter_bytes.get(drafter), tokens)
    except (ConfigError, UnsupportedModelError):  # not in this mlx-lm, or nothing is known of the target
        return PublicPair(*about, None, mine is not None, [])

    def variant(bits: int, repository: str | None, weights: int) -> Variant:
        need = Need(weights, sizes.cache.bytes(tokens), *parts)
        return Variant(bits, repository, need, need.total <= usable)

    variants = [variant(bits, None, weights) for bits, weights in sorted(sizes.weights.items())]
    for snapshot in here:
        variants.append(variant(snapshot.bits, snapshot.repository, snapshot.weight_bytes))
    return PublicPair(*about, sizes.parameters, mine is not None, variants)


def _drafter_parts(
    target_config: Mapping[str, Any], known: KnownDrafter, mine: Snapshot | None, told_bytes: int | None, tokens: int
) -> tuple[int, int, bool]:
    """Bytes of a drafter's weights and of its cache, and whether one of the two is an estimate.

    mine: the drafter where it is on this machine.  told_bytes: of its weights, where the Hub has told them.
    """
    usual = usual_drafter(target_config)
    weights = usual_drafter_bytes(usual) + (2 * table_bytes(usual) if known.own_tables else 0)
    cache = drafter_cache_bytes(usual, tokens)
    estimated = mine is None
    if mine is not None:
        weights = mine.weight_bytes
        try:
            cache = drafter_cache_bytes(DrafterConfig.from_dict(mine.config), tokens)
        except ConfigError:  # a layout that is not understood here
            estimated = True
    elif told_bytes is not None:
        weights = told_bytes
        estimated = False  # the cache's estimate is small beside the weights
    return weights, cache, estimated


def ask_for_sizes(drafters: Iterable[str]) -> dict[str, int]:
    """Bytes of the drafters' weights, as the Hub lists them now.  Raises MlxDdtreeError when it cannot be asked."""
    api = HfApi()
    sizes = {}
    for drafter in drafters:
        if drafter.startswith(BROUGHT):
            continue
        try:
            files = api.model_info(drafter, files_metadata=True).siblings or []
        except Exception as error:  # the HTTP client's own errors too, whose module changes with huggingface_hub
            failure = explain(error, drafter)
            if getattr(error, "response", None) is None:  # no answer: the next question gets none either
                raise failure from error
            continue  # that one repository is gone, private or renamed: its size stays unknown
        total = sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors"))
        if total:
            sizes[drafter] = total
    return sizes
