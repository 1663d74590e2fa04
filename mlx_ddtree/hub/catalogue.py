"""The public pairs: how large they are, what is here already, what fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from huggingface_hub import HfApi

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.errors import ConfigError, UnsupportedModelError
from mlx_ddtree.hub.cached import Snapshot
from mlx_ddtree.hub.fetch import explain
from mlx_ddtree.hub.memory import Need
from mlx_ddtree.hub.public_configs import PUBLIC_CONFIGS
from mlx_ddtree.hub.registry import find_drafter, find_pairs
from mlx_ddtree.hub.size import drafter_cache_bytes, model_size


@dataclass(frozen=True)
class Variant:
    """The target with weights of one size.

    repository: what is on this machine; None is computed from the config, for anybody's quantisation.
    """

    bits: int
    repository: str | None
    need: Need
    fits: bool


@dataclass(frozen=True)
class PublicPair:
    """One line of the list; parameters is None where neither the target's config is known nor the target here."""

    target: str
    drafter: str
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
        variants = [asdict(v) | {"need": asdict(v.need) | {"total": v.need.total}} for v in self.variants]
        return asdict(self) | {"variants": variants, "fits": self.fits}


def public_pairs(
    words: Sequence[str], tokens: int, usable: int, cached: Sequence[Snapshot], drafter_bytes: Mapping[str, int]
) -> list[PublicPair]:
    """The registry's pairs whose names hold all `words`.

    tokens: of context, prompt and answer.  usable: bytes of memory.  cached: what this machine holds.
    drafter_bytes: sizes that the Hub told, by repository.
    """
    return [_pair(target, drafter, tokens, usable, cached, drafter_bytes) for target, drafter in find_pairs(words)]


def _pair(
    target: str,
    drafter: str,
    tokens: int,
    usable: int,
    cached: Sequence[Snapshot],
    drafter_bytes: Mapping[str, int],
) -> PublicPair:
    mine = next((s for s in cached if s.repository == drafter), None)
    size = mine.weight_bytes if mine else drafter_bytes.get(drafter)
    here = [s for s in cached if s.repository != drafter and find_drafter(s.repository) == drafter]
    config = PUBLIC_CONFIGS.get(target) or next((s.config for s in here), {})
    try:
        sizes = model_size(config)
    except UnsupportedModelError:  # not in this mlx-lm, or nothing is known of it
        return PublicPair(target, drafter, None, mine is not None, [])

    def variant(bits: int, repository: str | None, weights: int) -> Variant:
        need = Need(weights, sizes.cache.bytes(tokens), size, _drafter_cache(mine, tokens))
        return Variant(bits, repository, need, need.total <= usable)

    variants = [variant(bits, None, weights) for bits, weights in sorted(sizes.weights.items())]
    variants += [variant(s.bits, s.repository, s.weight_bytes) for s in here]
    return PublicPair(target, drafter, sizes.parameters, mine is not None, variants)


def _drafter_cache(drafter: Snapshot | None, tokens: int) -> int | None:
    """None where the drafter is not here, or has a layout that is not understood."""
    with suppress(ConfigError):
        return drafter_cache_bytes(DrafterConfig.from_dict(drafter.config), tokens) if drafter else None
    return None


def ask_for_sizes(drafters: Iterable[str]) -> dict[str, int]:
    """Bytes of the drafters' weights, as the Hub lists them now.  Raises MlxDdtreeError when it cannot be asked."""
    api, sizes = HfApi(), {}
    for drafter in drafters:
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
