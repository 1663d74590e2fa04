"""How much forwards of several rows round differently from plain decoding: measured on the loaded pair."""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.profile import ParityBounds
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import Target
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree

SAMPLE = (
    "Write a function that returns the sum of the even numbers in a list.\n"
    "def sum_even(numbers: list[int]) -> int:\n    return sum(n for n in numbers if n % 2 == 0)\n"
)
STEPS = 48
"""Tokens of the sample's continuation that are compared."""
LONG_STEPS = 16
"""Tokens that are compared behind a long text."""
WIDTHS = (2, 4, 8, 16)
"""Rows of a forward whose rounding is measured."""
LONG_TEXT = 384
LONGEST_TEXT = 1536
"""Tokens of the long text: enough that sliding windows have wrapped, but never more than the second number."""
PREFILL = 512
HIGH = 8
"""Logits of a row that could become the best."""
SAFETY = 2.0


@dataclass(frozen=True)
class _Plain:
    """Greedy tokens behind a prompt, and the logits (n, V) of each token's place, all by single rows."""

    prompt: list[int]
    tokens: list[int]
    logits: NDArray[np.float32]
    dtype: mx.Dtype


@dataclass
class _ByRows:
    """Logits of the places of a text, `width` rows at a time.

    logits: (n, V).  alone: of `places`, by a single row over the cache that forwards of several rows have filled.
    """

    logits: NDArray[np.float32]
    places: list[int]
    alone: NDArray[np.float32]


def measure_parity(pair: Pair) -> ParityBounds:
    """Margins below which a choice is not trusted: twice the largest change seen in the difference of two high logits,
    against plain decoding of one text.

    Chains and bushy trees are measured, behind a short text and behind one that wraps sliding windows.  A sample can
    miss rounding that another text meets, so a bound is never below two steps of the logits' own type at their size.
    """
    short = sample_prompt(pair)
    rows = 0.0
    cache = 0.0
    floor = 0.0
    for prompt, steps, widths in ((short, STEPS, WIDTHS), (_long_prompt(pair, short), LONG_STEPS, WIDTHS[-2:])):
        plain = _plainly(pair.target, prompt, steps)
        floor = max(floor, _least_bound(plain))
        for width in widths:
            for bushy in (False, True):
                measured = _by_rows(pair.target, plain, width, bushy)
                rows = max(rows, _change(plain.logits, measured.logits))
                cache = max(cache, _change(plain.logits[measured.places], measured.alone))
    return ParityBounds(max(SAFETY * rows, floor), max(SAFETY * cache, floor))


def sample_prompt(pair: Pair) -> list[int]:
    """Some text of the model's own kind; short enough for every context."""
    tokens = list(pair.tokenizer.encode(SAMPLE))
    limit = pair.target.max_context or len(tokens) + STEPS
    known = [t for t in tokens if t < pair.target.args.vocab_size]
    return known[: max(1, min(len(known), limit - STEPS - max(WIDTHS)))]


def _long_prompt(pair: Pair, short: list[int]) -> list[int]:
    """The sample again and again, until it is longer than the windows of the target's caches."""
    windows = [getattr(layer, "max_size", None) or 0 for layer in pair.target.make_cache()]
    length = min(max(LONG_TEXT, *windows) + max(WIDTHS), LONGEST_TEXT)
    if pair.target.max_context is not None:
        length = min(length, pair.target.max_context - LONG_STEPS - max(WIDTHS))
    length = max(length, 1)
    return (short * (length // len(short) + 1))[:length]


def _plainly(target: Target, prompt: list[int], steps: int) -> _Plain:
    """`steps` greedy tokens from the prompt's last one on, a row at a time."""
    cache = _filled_cache(target, prompt)
    rows = []
    tokens = [prompt[-1]]
    for _ in range(steps):
        hidden, _ = target.forward(mx.array([[tokens[-1]]]), cache)
        logits = target.unembed(hidden[0])
        rows.append(np.array(logits.astype(mx.float32)))
        tokens.append(int(rows[-1].argmax()))
    return _Plain(prompt, tokens[:-1], np.concatenate(rows), logits.dtype)


def _by_rows(target: Target, plain: _Plain, width: int, bushy: bool) -> _ByRows:
    """The plain text's logits as trees are verified, and at the places between two forwards also by a single row."""
    cache = _filled_cache(target, plain.prompt)
    rows, places, alone = [], [], []
    start = 0
    while start < len(plain.tokens):
        # 1. A row of its own, over the cache that forwards of several rows have filled; undone again.
        before = target.mark(cache)
        hidden, _ = target.forward(mx.array([[plain.tokens[start]]]), cache)
        alone.append(np.array(target.unembed(hidden[0]).astype(mx.float32)))
        places.append(start)
        target.rewind(cache, before)
        # 2. The next tokens as a path through a tree of `width` rows, which is then committed.
        tree, path = _tree_along(plain.tokens[start:], width, bushy)
        length = len(plain.prompt) - 1 + start
        tree_rows = TreeRows(tree, length, len(tree))
        hidden, _, pending = target.forward_rows(mx.array(tree.token_ids)[None], tree_rows, cache)
        pending.commit(path)
        rows.append(np.array(target.unembed_tree(hidden[0])[mx.array(path)].astype(mx.float32)))
        start += len(path)
    return _ByRows(np.concatenate(rows), places, np.concatenate(alone))


def _tree_along(tokens: list[int], width: int, bushy: bool) -> tuple[DraftTree, list[int]]:
    """A tree of at most `width` rows and the rows in it that hold the first tokens, from the root on.

    A bushy one gives every node of the path a sibling that holds another token.
    """
    if not bushy:
        part = np.array(tokens[:width])
        return DraftTree.chain(part), list(range(len(part)))
    token_ids = [tokens[0]]
    parents = [-1]
    path = [0]
    for token in tokens[1 : max(width // 2, 1)]:
        token_ids += [tokens[0], token]
        parents += [path[-1], path[-1]]
        path.append(len(token_ids) - 1)
    while len(token_ids) < width:
        token_ids.append(tokens[0])
        parents.append(path[-1])
    depths = np.zeros(len(parents), np.int32)
    for node in range(1, len(parents)):
        depths[node] = depths[parents[node]] + 1
    weights = np.zeros(len(parents), np.float32)
    return DraftTree(np.array(token_ids, np.int32), np.array(parents, np.int32), depths, weights), path


def _filled_cache(target: Target, prompt: list[int]) -> list[Any]:
    """The cache behind all tokens of the prompt but the last."""
    cache = target.make_cache()
    for start in range(0, len(prompt) - 1, PREFILL):
        target.forward(mx.array([prompt[:-1][start : start + PREFILL]]), cache)
        mx.eval([layer.state for layer in cache])
    return cache


def _change(plain: NDArray[np.float32], by_rows: NDArray[np.float32]) -> float:
    """Largest change of a difference between two of a row's HIGH best logits."""
    best = np.argsort(-plain, axis=-1)[:, :HIGH]
    moved = np.take_along_axis(by_rows - plain, best, axis=-1)
    return float((moved.max(axis=-1) - moved.min(axis=-1)).max())


def _least_bound(plain: _Plain) -> float:
    """SAFETY steps between neighbouring numbers of the logits' type, at the size of the best logits."""
    best = np.sort(plain.logits, axis=-1)[:, -HIGH:]
    largest = max(float(np.abs(best).max()), 1.0)
    _, exponent = frexp(largest)
    return SAFETY * mx.finfo(plain.dtype).eps * 2.0 ** (exponent - 1)
