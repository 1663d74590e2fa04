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
from mlx_ddtree.icecache.cache import IceLayer, Reader, Reads
from mlx_ddtree.icecache.options import IceCacheOptions
from mlx_ddtree.icecache.select import PageSet
from mlx_ddtree.target import Target, family_of
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
        self.target, self.options = target, options
        self.places = pageable(target, options, target_cache)
        self.reader: Reader | None = None

    def begin(self, state: DecodeState, plan: RoundPlan) -> tuple[RoundPlan, Reads]:
        """From now on rows of decoding read in part; the plan that goes with that, and the counts of what is read.

        Layers are replaced in the state's caches; pages of an earlier call with the same options stay.

        Near ties are decided by a row of their own, but the cache is not made anew for them
        (decoding/parity.py): rounding is the smaller error here."""
        target_cache = state.target_cache
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
        reader, paged, led = Reader(self.options), list[IceLayer](), 0
        for layer in layers:
            if isinstance(layer, IceLayer):
                layer.restore()
            leads = not paged or led == self.options.reuse or not _alike(paged[-1], layer)
            led = 1 if leads else led + 1
            pages = PageSet(self.options) if leads else paged[-1].pages
            paged.append(IceLayer(layer, reader, pages, leads, first=not paged))
        return paged


def pageable(target: Target, options: IceCacheOptions, target_cache: Sequence[Any]) -> list[int]:
    """The places of the caches that can be read in part.  Raises UnsupportedModelError, OptionError."""
    layers = getattr(target, "layers", [])
    attending = [i for i, layer in enumerate(layers) if i < len(target_cache) and _takes(layer)]
    shared = {source for source, user in _sharing(target) if source != user}
    kinds = (KVCache, IceLayer)
    if attending and not any(type(target_cache[i]) in kinds for i in attending):
        names = ", ".join(sorted({type(target_cache[i]).__name__ for i in attending}))
        raise OptionError(f"no layer's cache is a KVCache ({names}): only such caches take a KV budget")
    places = [i for i in attending[options.full_layers :] if type(target_cache[i]) in kinds and i not in shared]
    if not places:
        raise UnsupportedModelError(
            f"{family_of(target.model)} has no layer of full attention over keys "
            f"of its own behind the first {options.full_layers}, so nothing of it can be paged: leave out the KV budget"
        )
    return places


def _takes(layer: Any) -> bool:
    return "self_attn" in layer and asks_its_cache(layer.self_attn)


def _sharing(target: Target) -> list[tuple[int, int]]:
    """(layer whose keys are read, layer) where a model has layers without keys of their own (gemma4)."""
    previous = getattr(getattr(getattr(target, "text", None), "model", None), "previous_kvs", ())
    return [(source, user) for user, source in enumerate(previous)]


def _alike(one: KVCache, other: KVCache) -> bool:
    """Whether a choice for one layer's heads can serve the other's."""
    assert one.keys is not None and other.keys is not None
    return one.keys.shape[1] == other.keys.shape[1]
