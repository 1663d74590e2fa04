"""Attention modules that ask their layer's cache to attend.

mlx-lm's model files import `scaled_dot_product_attention` by name and call it at the end of their attention's
`__call__`.  On an instance of such a class that code runs as it is, with another function under this one name.  It
leaves the attention to a cache that is an AttendingCache, such as the views of a verification, and otherwise calls
mlx-lm's function.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache as remember
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import base

from mlx_ddtree.kernels.tree_attention import KeysOrValues, supports
from mlx_ddtree.target.rows import RowsMask

_NAME = "scaled_dot_product_attention"


class AttendingCache:
    """A cache, or a view of one, that is asked for its layer's attention.

    tree_view: what stands for such a cache under a draft tree; None where it cannot hold one.
    """

    tree_view: type[Any] | None = None

    def attend(
        self,
        queries: mx.array,
        keys: KeysOrValues,
        values: KeysOrValues,
        scale: float,
        mask: Any,
        sinks: mx.array | None,
    ) -> mx.array:
        """Queries (1, Hq, N, D) over what `update_and_fetch` and `make_mask` gave to this layer -> (1, Hq, N, Dv).

        sinks: (Hq,) logits that join the softmax's denominator, or None.
        """
        return masked_attention(queries, keys, values, self, scale, mask, sinks)


def scaled_dot_product_attention(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    """As mlx_lm.models.base has it; shapes are those of kernels.tree_attention."""
    if isinstance(cache, AttendingCache):
        return cache.attend(queries, keys, values, scale, mask, sinks)
    return masked_attention(queries, keys, values, cache, scale, mask, sinks)


def masked_attention(
    queries: mx.array,
    keys: KeysOrValues,
    values: KeysOrValues,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None,
) -> mx.array:
    """mlx-lm's function, which also takes a RowsMask: a layer that shares another one's keys has no cache to ask."""
    if isinstance(mask, RowsMask):
        if supports(queries, keys, values):
            return mask.attend(queries, keys, values, scale=scale, sinks=sinks)
        mask = mask.dense()
    return base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)


def asks_its_cache(module: nn.Module) -> bool:
    """Whether an attention module lets an AttendingCache attend.

    Latent attention (MLA) does not: it has no keys of heads, and adds the scores of positions itself.
    """
    return getattr(type(module), "rebound", False) and "k_proj" in module


def adapt_attention(module: nn.Module) -> None:
    """Let this attention module ask its cache; other modules, and other instances, stay as they are."""
    mlx_lms = base.scaled_dot_product_attention
    if names_attention(module) and type(module).__call__.__globals__.get(_NAME) is mlx_lms:
        module.__class__ = _rebound(type(module))


@remember
def _rebound(own: type[Any]) -> type[Any]:
    return attending_by(own, scaled_dot_product_attention, rebound=True)


def attending_by(own: type[Any], function: Callable[..., mx.array], **attributes: Any) -> type[Any]:
    """A subclass of an attention class with the same code, in which the name of mlx-lm's attention means `function`."""
    return calling(own, _NAME, function, **attributes)


def calling(own: type[Any], name: str, function: Callable[..., mx.array], **attributes: Any) -> type[Any]:
    """A subclass with the same `__call__`, in which a name of its module means `function`."""
    call = own.__call__
    known = {**call.__globals__, name: function}
    same = types.FunctionType(call.__code__, known, call.__name__, call.__defaults__, call.__closure__)
    same.__kwdefaults__ = call.__kwdefaults__
    return type(own.__name__, (own,), {"__call__": same, "__module__": own.__module__, **attributes})


def names_attention(module: nn.Module) -> bool:
    """Whether this module's own code calls mlx-lm's attention by its name."""
    call = type(module).__call__
    return isinstance(call, types.FunctionType) and _NAME in call.__code__.co_names
