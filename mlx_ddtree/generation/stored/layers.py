"""Caches as tensors: rows that stand for tokens, which are cut anywhere, and states, which are whole or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

from mlx_ddtree.drafter.window import WindowCache
from mlx_ddtree.files.tensors import Tensor
from mlx_ddtree.target.marks import Mark

KINDS: dict[mx.Dtype, str] = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.bool_: "BOOL",
    **{getattr(mx, f"int{bits}"): f"I{bits}" for bits in (8, 16, 32, 64)},
    **{getattr(mx, f"uint{bits}"): f"U{bits}" for bits in (8, 16, 32, 64)},
}
"""MLX's number types by safetensors' names."""


def tensor_of(x: mx.array) -> Tensor:
    """A copy of an array, which another thread may have."""
    bits = x.view(mx.uint16) if x.dtype == mx.bfloat16 else x
    return Tensor(KINDS[x.dtype], np.array(bits))


def array_of(tensor: Tensor) -> mx.array:
    """A tensor as an array of its own type."""
    x = mx.array(tensor.values)
    return x.view(mx.bfloat16) if tensor.kind == "BF16" else x


def parts_of(layers: Sequence[Any], name: str = "") -> Iterator[tuple[str, Any]]:
    """Every cache of these layers by name, those inside of a layer's one by one."""
    for place, layer in enumerate(layers):
        if isinstance(layer, CacheList):
            yield from parts_of(layer.caches, f"{name}{place}.")
        else:
            yield f"{name}{place}", layer


def can_be_stored(layers: Sequence[Any]) -> bool:
    """Whether all caches are of kinds that are known here."""
    known = (KVCache, WindowCache, RotatingKVCache, ArraysCache)
    return all(type(part) in known for _, part in parts_of(layers))


def row_parts(layers: Sequence[Any], name: str) -> dict[str, Any]:
    """The caches whose rows stand for tokens, by name."""
    return {at: part for at, part in parts_of(layers, name) if isinstance(part, KVCache | WindowCache)}


def cut_rows(parts: dict[str, Any], start: int, stop: int) -> dict[str, Tensor] | None:
    """The rows of the tokens start..stop - 1; None where a cache that keeps all its rows does not reach that far.

    A window that has gone on has no such rows any more: they are left out.
    """
    cut: dict[str, mx.array] = {}
    for name, part in parts.items():
        if part.keys is None and part.offset == 0 and isinstance(part, KVCache) and not name.startswith("drafter"):
            continue  # a layer that this model leaves empty
        if part.offset < stop:
            return None
        first = part.first if isinstance(part, WindowCache) else 0
        if first > start:
            continue
        cut[f"{name}.keys"] = part.keys[..., start - first : stop - first, :]
        cut[f"{name}.values"] = part.values[..., start - first : stop - first, :]
    mx.eval(list(cut.values()))
    return {name: tensor_of(x) for name, x in cut.items()}


class RowFiller:
    """Puts rows into empty caches, file by file; tokens: how many will come in all."""

    def __init__(self, parts: dict[str, Any], tokens: int) -> None:
        self.parts = parts
        self.tokens = tokens

    def add(self, tensors: dict[str, Tensor], start: int, stop: int) -> None:
        """The rows of the tokens start..stop - 1, the first ones of a file's; those before are in the caches."""
        for name, part in self.parts.items():
            keys, values = tensors.get(f"{name}.keys"), tensors.get(f"{name}.values")
            if keys is None or values is None:
                if isinstance(part, WindowCache):  # its rows begin behind these
                    part.keys = part.values = None
                    part.first = part.offset = stop
                continue
            self._put(part, array_of(keys), array_of(values), start, stop)
        mx.eval([part.state for part in self.parts.values() if part.keys is not None])

    def _put(self, part: Any, keys: mx.array, values: mx.array, start: int, stop: int) -> None:
        first = part.first if isinstance(part, WindowCache) else 0
        if part.keys is None:
            room = part.step * -(-(self.tokens - first) // part.step)
            part.keys = mx.zeros((*keys.shape[:2], room, keys.shape[3]), keys.dtype)
            part.values = mx.zeros((*values.shape[:2], room, values.shape[3]), values.dtype)
        part.keys[..., start - first : stop - first, :] = keys[..., : stop - start, :]
        part.values[..., start - first : stop - first, :] = values[..., : stop - start, :]
        part.offset = stop


def state_parts(layers: Sequence[Any]) -> dict[str, Any]:
    """The caches that cannot be cut, by name."""
    return {at: part for at, part in parts_of(layers) if isinstance(part, RotatingKVCache | ArraysCache)}


def states_of(layers: Sequence[Any], marked: Mark) -> tuple[dict[str, Tensor], str]:
    """What a mark holds, as tensors by name, and its numbers as JSON."""
    named = dict(tree_flatten(list(marked)))
    arrays = {name: x for name, x in named.items() if isinstance(x, mx.array)}
    mx.eval(list(arrays.values()))
    numbers = {name: x for name, x in named.items() if isinstance(x, int)}
    return {name: tensor_of(x) for name, x in arrays.items()}, json.dumps(numbers)


def put_states(layers: Sequence[Any], tensors: dict[str, Tensor], numbers: dict[str, int]) -> None:
    """Let fresh caches stand where a mark was taken.  Raises KeyError where these are not a mark of such caches."""
    for name, part in state_parts(layers).items():
        if isinstance(part, ArraysCache):
            found: list[Any] = [_found(tensors, f"{name}.{place}") for place in range(len(part.cache))]
            part.cache = found
            continue
        part.keys, part.values = _found(tensors, f"{name}.0"), _found(tensors, f"{name}.1")
        part.offset, part._idx = numbers[f"{name}.2"], numbers[f"{name}.3"]
    mx.eval([part.state for part in state_parts(layers).values()])


def _found(tensors: dict[str, Tensor], name: str) -> mx.array | None:
    tensor = tensors.get(name)
    return None if tensor is None else array_of(tensor)
