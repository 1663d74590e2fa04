"""Whether a loaded model computes a draft tree's nodes as it computes their paths alone: a test in place of a list.

A family of mlx-lm that nobody has looked at may turn its positions, masks or states in ways that a tree's view of its
caches does not reach.  A small tree shows it: forks, siblings of one depth, a parent that is not the row before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import UnsupportedModelError, one_line
from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree

CONTEXT = 7
"""Tokens before the tree, as a rule."""
PARENTS = (-1, 0, 0, 1, 2, 3)
"""Root, two children, a child of each, and one below the first."""
LONG, SHORT = (0, 1, 3, 5), (2, 4)
"""The path to the deepest leaf; what the other leaf's path adds to the root."""
FOLLOWING = 2
"""Steps after a commit whose logits are compared."""
NOISE = 8.0
"""How much further a tree may be from single steps than the model's own forward of several rows is."""
LEAST = 2e-3
"""Difference that is always allowed, of the largest logit; fp32 gives a tenth of it."""
TELLING = 4.0
"""A difference that another path makes has to be so many times what is allowed, else the test says nothing."""


def why_no_trees(target: TreeTarget, context: int = CONTEXT) -> str | None:
    """The reason why this target cannot verify trees; None if it can.  About ten forwards of a few rows.

    context: tokens before the tree.
    """
    try:
        target.check_cache(target.make_cache())
        return _compare(target, context)
    except UnsupportedModelError as error:
        return str(error)
    except Exception as error:  # a model's own code, met with positions and masks that it was not written for
        return f"a draft tree stops it ({one_line(error)})"


def _compare(target: TreeTarget, length: int) -> str | None:
    rng = np.random.default_rng(11)
    tokens = rng.integers(0, target.vocab_size, len(PARENTS)).astype(np.int32)
    context = rng.integers(0, target.vocab_size, length)
    following = rng.integers(0, target.vocab_size, FOLLOWING)
    # 1. What each node's path gives by itself, one token a step; and the same path in one forward, to see the rounding.
    cache = _read(target, context)
    plain = {0: _step(target, tokens[0], cache)}
    other = target.copy_cache(cache)
    for cache_of_path, path in ((cache, LONG[1:]), (other, SHORT)):
        for node in path:
            plain[node] = _step(target, tokens[node], cache_of_path)
    together = _logits(target.model(mx.array(tokens[list(LONG)])[None], cache=_read(target, context)))
    apart = np.stack([plain[node] for node in LONG])
    allowed = max(NOISE * float(np.abs(together - apart).max()), LEAST * float(np.abs(apart).max()))
    if float(np.abs(plain[5] - plain[4]).max()) <= TELLING * allowed:
        return "its rounding is too coarse to tell a right tree from a wrong one"
    # 2. The tree in one forward.
    cache = _read(target, context)
    standing = target.mark(cache)
    got = _verify(target, tokens, length, cache)[0]
    if not _close(got, np.stack([plain[node] for node in range(len(PARENTS))]), allowed):
        return "a draft tree's rows see more or less than their own paths"
    # 3. Once more after it was undone, and then committed: what follows has to be what follows its path.
    target.rewind(cache, standing)
    _, pending = _verify(target, tokens, length, cache)
    pending.commit(list(LONG[:-1]))
    alone = _read(target, context)
    for node in LONG[:-1]:
        _step(target, tokens[node], alone)
    for token in following:
        if not _close(_step(target, token, cache), _step(target, token, alone), allowed):
            return "its caches are not the path's after a commit"
    return None


def _read(target: TreeTarget, context: NDArray[np.integer[Any]]) -> list[Any]:
    """Caches that hold the context, its last token by a row of its own."""
    cache = target.make_cache()
    target.forward(mx.array(context[:-1])[None], cache)
    target.forward(mx.array(context[-1:])[None], cache)
    return cache


def _step(target: TreeTarget, token: np.integer[Any], cache: Sequence[Any]) -> NDArray[np.float32]:
    """(V,) logits behind a token, by the model's own call."""
    return _logits(target.model(mx.array([[int(token)]]), cache=cache))[-1]


def _verify(
    target: TreeTarget, tokens: NDArray[np.int32], start: int, cache: Sequence[Any]
) -> tuple[NDArray[np.float32], Any]:
    """(N, V) logits of the tree's nodes, and what awaits the commit."""
    parents = np.array(PARENTS, np.int32)
    depths = np.zeros_like(parents)
    for node, parent in enumerate(parents[1:], start=1):
        depths[node] = depths[parent] + 1
    tree = DraftTree(tokens, parents, depths, np.zeros(len(tokens), np.float32))
    rows = TreeRows(tree, start, len(tokens))
    hidden, _, pending = target.forward_rows(mx.array(tokens)[None], rows, cache)
    return _logits(target.unembed(hidden)), pending


def _logits(logits: mx.array) -> NDArray[np.float32]:
    """(1, n, V) -> (n, V)."""
    return np.array(logits[0].astype(mx.float32))


def _close(a: NDArray[np.float32], b: NDArray[np.float32], allowed: float) -> bool:
    return a.shape == b.shape and float(np.abs(a - b).max()) <= allowed
