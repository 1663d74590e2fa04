"""The parts of an mlx-lm model that are used apart: its embedding, its stack of layers, its head.

mlx-lm's model files agree on little: a Model has layers, is called with tokens and caches, and gives logits.  What a
target needs beside that is found here by what it is, not by the family's name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.errors import UnsupportedModelError

LEARNED_POSITIONS = "wpe"
"""What GPT-2's relatives in mlx-lm call their embedding of positions."""
_NORMS = ("norm", "final_layernorm", "final_layer_norm", "ln_f", "embedding_norm")


def text_of(model: nn.Module) -> Any:
    """The part of an mlx-lm model that speaks: multimodal checkpoints keep it apart."""
    while "language_model" in model and "layers" not in model:
        model = model.language_model
    return model


def settings_of(model: nn.Module) -> Any:
    """The config that a model of mlx-lm keeps; most call it args."""
    for name in ("args", "config"):
        if hasattr(model, name):
            return getattr(model, name)
    raise UnsupportedModelError(f"mlx-lm's {type(model).__module__} keeps no config")


@dataclass(frozen=True)
class Anatomy:
    """text: the model that speaks; its call gives logits.  stack: its child that turns tokens into normalised hidden
    states.  name: the stack's name in `text`, with dots.  embedding: the stack's, tokens to vectors."""

    text: Any
    stack: Any
    name: str
    embedding: Any

    @property
    def layers(self) -> Sequence[Any]:
        """The layers in order; None where another stage of a pipeline has the layer."""
        own, of_text = self.stack.get("layers", []), getattr(self.text, "layers", [])
        return own if isinstance(own, list) and len(own) >= len(of_text) else of_text

    @cached_property
    def takes_mask(self) -> bool:
        """Whether the stack wants a mask that its model makes, as Phixtral's does."""
        mask = inspect.signature(type(self.stack).__call__).parameters.get("mask")
        return mask is not None and mask.default is inspect.Parameter.empty

    @property
    def norm_gains(self) -> mx.array:
        """(D,) float32: what the stack's last norm multiplies channels by.  Families keep w or 1 + w, so the norm
        is asked: a row of 1 and -1 in turns has mean 0 and size 1 already."""
        width = self.embedding_shape[1]
        norm = next((self.stack[name] for name in _NORMS if name in self.stack), None)
        if norm is None:
            return mx.ones(width)
        signs = 1.0 - 2.0 * (mx.arange(width) % 2)
        return norm(signs) * signs

    @property
    def head_module(self) -> Any:
        """What multiplies hidden states at the end: a layer of its own, or the table of tokens."""
        return self.text.lm_head if "lm_head" in self.text else self.embedding

    def head(self, hidden: mx.array) -> mx.array:
        """(..., D) normalised hidden states -> (..., V), by `head_module` alone."""
        return self.text.lm_head(hidden) if "lm_head" in self.text else self.embedding.as_linear(hidden)

    def logits(self, hidden: mx.array) -> mx.array:
        """(..., D) normalised hidden states -> (..., V) logits."""
        return self.bounded(self.head(hidden))

    @cached_property
    def logit_bound(self) -> float | None:
        """The bound c of logits c * tanh(x / c), for models whose config states one."""
        bound: float | None = getattr(self.settings, "final_logit_softcapping", None)
        return bound

    def bounded(self, logits: mx.array) -> mx.array:
        """Logits within `logit_bound`."""
        bound = self.logit_bound
        return logits if bound is None else mx.tanh(logits / bound) * bound

    @property
    def settings(self) -> Any:
        """The model's config, as its class reads it."""
        return settings_of(self.text)

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """Tokens, and channels of a vector; quantised tables say their channels apart, adapters' hold the table."""
        table = self.embedding.get("embedding", self.embedding)
        return table.weight.shape[0], getattr(table, "dims", table.weight.shape[1])


def find_anatomy(model: nn.Module) -> Anatomy:
    """A model's parts.  Raises UnsupportedModelError where they are not found."""
    text = text_of(model)
    inside = list(text.children().items())
    while inside:
        name, child = inside.pop(0)
        if not isinstance(child, nn.Module):
            continue
        table = _token_table(child) if takes_cache(child) else None
        if table is not None:
            return Anatomy(text, child, name, table)
        if not takes_cache(child):  # it may only hold the stack beside what text does not need
            inside += [(f"{name}.{inner}", part) for inner, part in child.children().items()]
    raise UnsupportedModelError("its stack of layers stands not where mlx-lm's models have it")


def takes_cache(module: nn.Module) -> bool:
    """Whether a module is called with caches."""
    return "cache" in inspect.signature(type(module).__call__).parameters


def _token_table(stack: nn.Module) -> nn.Module | None:
    """What a stack turns tokens into vectors with: the outermost of its tables, because an adapter's
    (LoRAEmbedding, DoRAEmbedding) has the model's own inside; not the table of positions."""
    if "embed_tokens" in stack:
        return stack.embed_tokens
    tables = {name: module for name, module in stack.named_modules() if hasattr(module, "as_linear")}
    tables.pop(LEARNED_POSITIONS, None)
    return tables[min(tables, key=lambda name: name.count("."))] if tables else None


class OwnHead:
    """A model's own way from normalised hidden states to logits, with all that it multiplies, caps or divides.

    Its call runs on a copy of the model that shares every parameter and whose stack gives what it was told to give.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._given: list[mx.array] = []
        self._text = copy(anatomy.text)
        *holders, name = anatomy.name.split(".")
        inner = self._text
        for each in holders:
            inner[each] = copy(inner[each])
            inner = inner[each]
        inner[name] = _giving(anatomy.stack, self._given)

    def __call__(self, hidden: mx.array) -> mx.array:
        """(..., D) -> (..., V)."""
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        self._given.append(rows)
        try:
            logits = self._text(mx.zeros(rows.shape[:2], mx.int32))
        finally:
            self._given.clear()
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


def _giving(stack: nn.Module, given: list[mx.array]) -> nn.Module:
    """A stack with the same parts, because heads are often the embedding's, that gives `given`'s last."""
    own: type[Any] = type(stack)

    class Giving(own):
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return given[-1]

    giving = copy(stack)
    giving.__class__ = Giving
    return giving
