"""Attention modules that leave the rows of a tree to a kernel.

mlx-lm's model files import `scaled_dot_product_attention` by name and call it at the end of their attention's
`__call__`.  On an instance of such a class that code runs as it is, with another function under this one name: for
a tree whose rows have an `attention` (the mask says so) that is what is called, for a cache that is read in part
(`ReadsPart`) the cache's own, for everything else mlx-lm's function.  A TailView for a cache is told the queries.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache as remember
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import base

from mlx_ddtree.kernels.tree_attention import supports
from mlx_ddtree.target.rows import RowsMask
from mlx_ddtree.target.tail import TailView
from mlx_ddtree.target.views import ReadsPart

_NAME = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    queries: mx.array,
    keys: Any,
    values: Any,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """As mlx_lm.models.base has it; shapes are those of kernels.tree_attention."""
    if isinstance(cache, ReadsPart) and cache.reads_part(queries):
        return cache.attend(queries, scale, sinks)
    if isinstance(mask, RowsMask):
        if supports(queries, keys, values):
            return mask.attend(queries, keys, values, scale, sinks)
        mask = mask.dense()
    if isinstance(cache, TailView):
        cache.see(queries, scale)
    return base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)


def takes_caches(module: nn.Module) -> bool:
    """Whether this attention module leaves its rows to a cache that is read in part.  Latent attention does not: it
    adds the scores of positions itself."""
    return getattr(type(module), "rebound", False) and "k_proj" in module


def take_tree_attention(module: nn.Module) -> None:
    """Let this attention module's rows go to a kernel; other modules, and other instances, stay as they are."""
    mlx_lms = base.scaled_dot_product_attention
    if names_attention(module) and type(module).__call__.__globals__.get(_NAME) is mlx_lms:
        module.__class__ = _rebound(type(module))


@remember
def _rebound(own: type[Any]) -> type[Any]:
    return attending_by(own, scaled_dot_product_attention, rebound=True)


def attending_by(own: type[Any], function: Callable[..., mx.array], **attributes: Any) -> type[Any]:
    """A subclass of an attention class with the same code, in which the name of mlx-lm's attention means `function`."""
    call = own.__call__
    known = {**call.__globals__, _NAME: function}
    same = types.FunctionType(call.__code__, known, call.__name__, call.__defaults__, call.__closure__)
    same.__kwdefaults__ = call.__kwdefaults__
    return type(own.__name__, (own,), {"__call__": same, "__module__": own.__module__, **attributes})


def names_attention(module: nn.Module) -> bool:
    """Whether this module's own code calls mlx-lm's attention by its name."""
    call = type(module).__call__
    return isinstance(call, types.FunctionType) and _NAME in call.__code__.co_names
