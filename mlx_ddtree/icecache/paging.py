"""One call's use of IceCache: which layers are paged, when it begins and ends, what the rest of decoding is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlx_lm.models.cache import KVCache

from mlx_ddtree.budget.profile import ParityBounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.icecache.cache import IceLayer
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.reads import Reader, Reads
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.target import PathTarget, Target, family_of
from mlx_ddtree.target.attention import asks_its_cache


def make_paging(
    target: Target, kv_budget: int | IceCacheOptions | None, target_cache: Sequence[Any], tokens: int | None
) -> Paging | None:
    """None where nothing is to be paged: without a budget, and where it holds all `tokens` that there can be."""
    options = IceCacheOptions.of(kv_budget)
    if options is None:
        return None
    target.on_one_machine("a budget for keys and values (--kv-budget)")
    paging = Paging(target, options, target_cache)
    return None if tokens is not None and options.reads_all(tokens) else paging


class Paging:
    """Turns the caches of layers that can be paged into IceLayers, once the prompt is in them."""

    def __init__(self, target: Target, options: IceCacheOptions, target_cache: Sequence[Any]) -> None:
        """Raises UnsupportedModelError where no layer can be paged, OptionError where the cache's kind forbids it."""
        self.target = target
        self.options = options
        self.places = pageable(target, options, target_cache)
        self.reader: Reader | None = None

    def begin(self, state: DecodeState, plan: RoundPlan) -> tuple[RoundPlan, Reads]:
        """From now on rows of decoding read in part; the plan that goes with that, and the counts of what is read.

        Layers are replaced in the state's caches; pages of an earlier call with the same options stay.

        Near ties are decided by a row of their own, but the cache is not made anew for them
        (decoding/parity.py): rounding is the smaller error here."""
        target_cache = state.caches.target
        layers = [target_cache[i] for i in self.places]
        known = layers[0].reader if isinstance(layers[0], IceLayer) else None
        if known is None or known.options != self.options or any(type(layer) is KVCache for layer in layers):
            for place, layer in zip(self.places, self._paged(layers), strict=True):
                state.caches.replace(place, layer)
            known = state.caches[self.places[0]].reader
        self.reader = known
        attending = [i for i, layer in enumerate(self.target.layers) if "self_attn" in layer]  # type: ignore[union-attr]
        known.reads = Reads(layers=len(self.places), full=len(attending) - len(self.places))
        known.active = True
        state.reads_at_most = self.options.budget
        return replace(plan, parity=ParityBounds(plan.parity.rows)), known.reads

    def end(self) -> None:
        """Everything is read in full again."""
        if self.reader is not None:
            self.reader.active = False

    def _paged(self, layers: Sequence[KVCache]) -> list[IceLayer]:
        """The layers anew, with empty pages; up to `reuse` layers in a row share those of the first of them."""
        reader = Reader(self.options)
        paged: list[IceLayer] = []
        sharing = 0
        for layer in layers:
            if isinstance(layer, IceLayer):
                layer.restore()
            leads = not paged or sharing == self.options.reuse or not _same_heads(paged[-1], layer)
            if leads:
                pages = PageSet(self.options)
                sharing = 1
            else:
                pages = paged[-1].pages
                sharing += 1
            paged.append(IceLayer(layer, reader, pages, leads, first=not paged))
        return paged


def pageable(target: Target, options: IceCacheOptions, target_cache: Sequence[Any]) -> list[int]:
    """The layers whose caches can be read in part.  Raises UnsupportedModelError, OptionError."""
    if isinstance(target, PathTarget):
        raise UnsupportedModelError(
            f"{family_of(target.model)} runs the paths of a tree over copies of its caches, which pages cannot be: "
            "leave out the KV budget"
        )
    layers = getattr(target, "layers", [])[: len(target_cache)]
    # 1. Layers of attention, whose caches are mlx-lm's plain ones or paged already.
    attending = [i for i, layer in enumerate(layers) if _takes(layer)]
    plain = [i for i in attending if type(target_cache[i]) in (KVCache, IceLayer)]
    if attending and not plain:
        names = ", ".join(sorted({type(target_cache[i]).__name__ for i in attending}))
        raise OptionError(f"no layer's cache is a KVCache ({names}): only such caches take a KV budget")
    # 2. Not the first ones, and none whose keys another layer reads too.
    read_by_others = _layers_read_by_others(target)
    always_full = attending[: options.full_layers]
    places = [i for i in plain if i not in always_full and i not in read_by_others]
    if not places:
        raise UnsupportedModelError(
            f"{family_of(target.model)} has no layer of full attention over keys "
            f"of its own behind the first {options.full_layers}, so nothing of it can be paged: leave out the KV budget"
        )
    return places


def _takes(layer: Any) -> bool:
    """Whether a layer's attention asks its cache how to attend."""
    return "self_attn" in layer and asks_its_cache(layer.self_attn)


def _layers_read_by_others(target: Target) -> set[int]:
    """Layers whose keys a layer without keys of its own reads too (gemma4)."""
    text = getattr(target, "text", None)
    sources = getattr(getattr(text, "model", None), "previous_kvs", ())  # by layer: the one whose keys it reads
    return {source for layer, source in enumerate(sources) if source != layer}


def _same_heads(one: KVCache, other: KVCache) -> bool:
    """Whether a choice for one layer's heads can serve the other's."""
    assert one.keys is not None and other.keys is not None
    return one.keys.shape[1] == other.keys.shape[1]
