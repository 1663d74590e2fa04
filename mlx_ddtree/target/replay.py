"""Recurrent layers of any kind under a draft tree: every path of the tree is run by the layer's own code.

A layer that carries a state from token to token (Mamba, RWKV, short convolutions, gated recurrences) can be asked for
one path at a time, and so for all paths side by side as a batch, each from the context's state.  The commit runs the
accepted path once more, which leaves the states that decoding it leaves.  No form of the recurrence has to be known;
where one is (target/gated_delta.py), a tree costs less than its paths.
"""

from __future__ import annotations

import dis
import inspect
import itertools
from collections.abc import Callable, Sequence
from functools import cache as remember
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.models.cache import ArraysCache, CacheList

from mlx_ddtree.target.anatomy import takes_cache
from mlx_ddtree.target.attention import names_attention
from mlx_ddtree.target.forward import Forward
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.target.views import StateView


class Replay:
    """One call of a recurrent module for the rows of a tree, and what its commit needs.

    own: the module's own call, by keywords.  arguments: what it was called with, `cache` apart.
    forward: says where rows stand.
    """

    def __init__(self, own: Callable[..., Any], arguments: dict[str, Any], rows: TreeRows, forward: Forward) -> None:
        self.own = own
        self.arguments = arguments
        self.rows = rows
        self.forward = forward

    def run(self, base: ArraysCache) -> Any:
        """The outputs of all rows, in the shapes of a call with them; `base`, the context's states, stays as it is."""
        paths, places = self.rows.paths
        count, length = paths.shape
        if self.rows.is_chain:
            return self.own(**self.arguments, cache=_spread(base, 1))
        nodes = mx.array(paths.reshape(-1))

        def in_paths(x: mx.array) -> mx.array:
            return x[0, nodes].reshape(count, length, *x.shape[2:])

        with self.forward.standing(in_paths(self.rows.positions)):
            outputs = self.own(**self._with_rows(in_paths), cache=_spread(base, count))
        chosen = mx.array(places)

        def of_rows(x: Any) -> Any:
            if not isinstance(x, mx.array) or x.shape[:2] != (count, length):
                return x
            return x.reshape(1, count * length, *x.shape[2:])[:, chosen]

        return tree_map(of_rows, outputs)

    def commit(self, base: ArraysCache, path: Sequence[int]) -> None:
        """Let `base` go on over the rows of `path`."""
        nodes = mx.array(list(path), mx.int32)
        with self.forward.standing(self.rows.positions[:, nodes]):
            self.own(**self._with_rows(lambda x: x[:, nodes]), cache=base)

    def _with_rows(self, change: Callable[[mx.array], mx.array]) -> dict[str, Any]:
        """The arguments, those that have a row each (1, N, ...) changed."""
        count = self.rows.count

        def of_argument(x: Any) -> Any:
            return change(x) if isinstance(x, mx.array) and x.ndim > 1 and x.shape[:2] == (1, count) else x

        return {name: of_argument(x) for name, x in self.arguments.items()}


def _spread(base: ArraysCache, count: int) -> ArraysCache:
    """A cache for `count` continuations of what `base` holds."""
    spread = ArraysCache(len(base.cache))
    spread.cache = [None if x is None else mx.repeat(x, count, axis=0) for x in base.cache]
    return spread


def carries_states(cache: Sequence[Any]) -> bool:
    """Whether some layer's cache holds states."""
    return any(carries_states(c.caches) if isinstance(c, CacheList) else isinstance(c, ArraysCache) for c in cache)


def adapt_recurrent(stack: nn.Module, forward: Forward) -> bool:
    """Let the modules of this stack that carry states take StateViews; what computes attention stays as it is.

    Gives whether a module was changed: which rows a path has must then be known before its graph is built.

    Several modules in each other are called with a layer's cache.  The innermost one, and whatever reads the cache's
    parts in its own code, may be the one that carries the states; who is not, is never called with a StateView.
    """
    changed = False
    for module in stack.modules():
        if (
            module is stack
            or not takes_cache(module)
            or names_attention(module)
            or getattr(module, "closed_form", False)
        ):
            continue
        inner = (m for m in module.modules() if m is not module)
        if _reads_parts(type(module)) or not any(map(takes_cache, inner)):
            module.__class__ = _replaying(cast(Any, type(module)))
            module.forward = forward
            changed = True
    return changed


def _reads_parts(own: type[Any]) -> bool:
    """Whether a class's own call says cache[i]."""
    code = list(dis.get_instructions(own.__call__))
    return any(
        first.opname.startswith("LOAD_FAST") and first.argval == "cache" and second.opname == "LOAD_CONST"
        for first, second in itertools.pairwise(code)
    )


@remember
def _replaying(own: Any) -> type[Any]:
    if getattr(own, "takes_trees", False):
        return own
    signature = inspect.signature(own.__call__)

    class Replaying(own):
        takes_trees = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(self, *args, **kwargs).arguments
            view = arguments.pop("cache", None)
            if not isinstance(view, StateView):
                return super().__call__(*args, **kwargs)
            del arguments["self"]
            replay = Replay(super().__call__, arguments, view.rows, self.forward)
            view.replays.append(replay)
            return replay.run(view.base)

    Replaying.__name__ = own.__name__
    Replaying.__module__ = own.__module__
    return Replaying
