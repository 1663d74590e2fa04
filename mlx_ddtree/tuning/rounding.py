"""How much forwards of several rows round differently from plain decoding: measured on the loaded pair."""

from __future__ import annotations

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
WIDTHS = (2, 4, 8, 16)
HIGH = 8
"""Logits of a row that could become the best."""
SAFETY = 2.0


def measure_parity(pair: Pair) -> ParityBounds:
    """Margins below which a choice is not trusted: twice the largest change seen in the difference of two
    high logits, against plain decoding of the same text."""
    target, prompt = pair.target, sample_prompt(pair)
    tokens, plain = _plainly(target, prompt)
    rows, cache = 0.0, 0.0
    for width in WIDTHS:
        by_rows, places, alone = _by_rows(target, prompt, tokens, width)
        rows = max(rows, _change(plain, by_rows))
        cache = max(cache, _change(plain[places], alone))
    return ParityBounds(SAFETY * rows, SAFETY * cache)


def sample_prompt(pair: Pair) -> list[int]:
    """Some text of the model's own kind; short enough for every context."""
    tokens = list(pair.tokenizer.encode(SAMPLE))
    limit = pair.target.max_context or len(tokens) + STEPS
    known = [t for t in tokens if t < pair.target.args.vocab_size]
    return known[: max(1, min(len(known), limit - STEPS - max(WIDTHS)))]


def _plainly(target: Target, prompt: list[int]) -> tuple[list[int], NDArray[np.float32]]:
    """STEPS greedy tokens after `prompt`, and the logits (STEPS, V) they were chosen from, a row at a time."""
    cache, rows = target.make_cache(), []
    target.forward(mx.array([prompt[:-1]]), cache)
    tokens = [prompt[-1]]
    for _ in range(STEPS):
        hidden, _ = target.forward(mx.array([[tokens[-1]]]), cache)
        rows.append(np.array(target.unembed(hidden[0]).astype(mx.float32)))
        tokens.append(int(rows[-1].argmax()))
    return tokens[:-1], np.concatenate(rows)


def _by_rows(
    target: Target, prompt: list[int], tokens: list[int], width: int
) -> tuple[NDArray[np.float32], list[int], NDArray[np.float32]]:
    """The same logits, `width` rows at a time, as trees are verified; and for the places between two such
    forwards the same by a row of its own, over the cache that they have filled."""
    cache, rows, places, alone = target.make_cache(), [], [], []
    target.forward(mx.array([prompt[:-1]]), cache)
    for start in range(0, len(tokens), width):
        part = np.array(tokens[start : start + width])
        between = target.mark(cache)
        hidden, _ = target.forward(mx.array(part[:1])[None], cache)
        alone.append(np.array(target.unembed(hidden[0]).astype(mx.float32)))
        places.append(start)
        target.rewind(cache, between)
        length = len(prompt) - 1 + start
        chain = TreeRows(DraftTree.chain(part), length, len(part))
        hidden, _, pending = target.forward_rows(mx.array(part)[None], chain, cache)
        pending.commit(range(len(part)))
        rows.append(np.array(target.unembed(hidden[0]).astype(mx.float32)))
    return np.concatenate(rows), places, np.concatenate(alone)


def _change(plain: NDArray[np.float32], by_rows: NDArray[np.float32]) -> float:
    """Largest change of a difference between two of a row's HIGH best logits."""
    best = np.argsort(-plain, axis=-1)[:, :HIGH]
    moved = np.take_along_axis(by_rows - plain, best, axis=-1)
    return float((moved.max(axis=-1) - moved.min(axis=-1)).max())
