"""Whatever in a model asks where rows stand: it is told by the running forward, so that rows may stand anywhere.

mlx-lm's models count positions from their caches' `offset`, an integer, one row behind the other.  Under a draft tree
and behind a prompt with holes the running forward knows better (`Forward.positions`), and what turns, embeds or scales
by positions asks it, on the loaded instance:

rotary embeddings    modules, whatever a model calls them; functions and methods of a model's own file
learned embeddings   of positions, which GPT-2's relatives add to those of tokens
scales of queries    by position (Ministral 3, Mistral 4)
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, TypeGuard

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import ministral3, rope_utils

from mlx_ddtree.kernels.rope import TreeRope, rotate_rows
from mlx_ddtree.target.anatomy import LEARNED_POSITIONS
from mlx_ddtree.target.attention import calling
from mlx_ddtree.target.forward import Forward


class ForwardRope(TreeRope):
    """A TreeRope that moves its rows to the positions of the running forward."""

    def __init__(self, rope: nn.Module, forward: Forward) -> None:
        super().__init__(rope)
        self.forward = forward

    def __call__(self, x: mx.array, offset: int | mx.array = 0, **options: Any) -> mx.array:
        """x: (B, heads, L, head_dim); offset: what the cache says, an int or (B, L) int32 positions."""
        positions = self.forward.positions
        if isinstance(positions, mx.array):
            return super().__call__(x, positions, **options)
        if positions:
            offset = offset + positions
        return super().__call__(x, offset, **options)


def adapt_positions(stack: nn.Module, forward: Forward) -> None:
    """Let everything in a model's stack that asks for positions take those of the running forward."""
    for module in stack.modules():
        adapt_rope(module, forward)
        _adapt_own_rope(module, forward)
    _adapt_query_scale(stack, forward)
    if LEARNED_POSITIONS in stack:
        _adapt_learned(stack[LEARNED_POSITIONS], forward)


def adapt_rope(module: nn.Module, forward: Forward) -> None:
    """Let an attention module's rotary embeddings take a position per row; modules without one stay as they are."""
    for name, child in list(module.items()):
        if isinstance(child, TreeRope):  # of another target over the same model
            module[name] = ForwardRope(child.rope, forward)
        elif isinstance(child, nn.Module) and (name == "rope" or _rotates(child)):
            module[name] = ForwardRope(child, forward)


def turns_by_length(stack: nn.Module) -> bool:
    """Whether some rotary embedding turns a row by the length of the text up to it, so that rows of one forward, which
    share a length, are not turned as single rows are."""
    return any(isinstance(module, rope_utils.DynamicNTKScalingRoPE) for module in stack.modules())


def _rotates(module: nn.Module) -> bool:
    """Whether this is one of the rotary embeddings that mlx-lm's models share, whatever a model calls it."""
    return isinstance(module, nn.RoPE) or type(module).__module__ == rope_utils.__name__


def _adapt_own_rope(module: nn.Module, forward: Forward) -> None:
    """Let an attention module that turns rows by a function of its own file, or a method, take a position per row."""
    own: Any = getattr(type(module), "turning", type(module))
    call: Any = own.__call__
    if isinstance(module, TreeRope) or not isinstance(call, types.FunctionType):
        return
    for name in call.__code__.co_names:
        function, method = call.__globals__.get(name), vars(own).get(name)
        if _is_rope(function):
            module.__class__ = calling(own, name, _anywhere(function, forward), turning=own)
        elif _is_rope(method):
            module.__class__ = type(own.__name__, (own,), {name: _anywhere(method, forward), "turning": own})


def _is_rope(function: Any) -> TypeGuard[types.FunctionType]:
    """Whether this function turns its first array by mx.fast.rope from an offset on."""
    return (
        isinstance(function, types.FunctionType)
        and {"fast", "rope"} <= set(function.__code__.co_names)
        and "offset" in inspect.signature(function).parameters
    )


def _anywhere(rope: Callable[..., mx.array], forward: Forward) -> Callable[..., mx.array]:
    """A model's own rotation, moved to the positions of the running forward."""
    signature = inspect.signature(rope)

    def turn(*args: Any, **kwargs: Any) -> mx.array:
        positions = forward.positions
        arguments = signature.bind(*args, **kwargs).arguments
        if isinstance(positions, mx.array):

            def rotate(x: mx.array, offset: mx.array) -> mx.array:
                return rope(**arguments | {"x": x, "offset": offset})

            return rotate_rows(rotate, arguments["x"], positions)
        arguments["offset"] += positions
        return rope(**arguments)

    return turn


def _adapt_learned(embedding: nn.Module, forward: Forward) -> None:
    """Let an embedding of positions ask the running forward which ones.

    Rows of a draft may stand behind its last one, where the text will have ended: they read the last, not what lies
    behind the table in memory.
    """
    own: Any = getattr(type(embedding), "placed", type(embedding))
    last = len(embedding.get("embedding", embedding).weight) - 1

    class Placed(own):
        placed = own

        def __call__(self, position_ids: mx.array) -> mx.array:
            positions = forward.positions
            places = positions if isinstance(positions, mx.array) else position_ids + positions
            return super().__call__(mx.minimum(places, last))

    Placed.__name__ = own.__name__
    embedding.__class__ = Placed


def _adapt_query_scale(stack: nn.Module, forward: Forward) -> None:
    """Let a stack that scales queries by their positions take a position per row."""
    name = "_get_llama_4_attn_scale"
    own = getattr(type(stack), "scaling", type(stack))
    call: Any = own.__call__
    theirs = call.__globals__.get(name)
    if name not in call.__code__.co_names or theirs is not ministral3._get_llama_4_attn_scale:
        return

    def of_rows(size: int, offset: int | mx.array, beta: float, most: int) -> mx.array:
        """(size, 1) scales of rows from `offset` on, or where the running forward says."""
        positions = forward.positions
        if isinstance(positions, mx.array):
            return theirs(1, positions[0], beta, most).reshape(size, 1)
        return theirs(size, offset + positions, beta, most)

    stack.__class__ = calling(own, name, of_rows, scaling=own)
