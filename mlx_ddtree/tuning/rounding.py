"""How much forwards of several rows round differently from plain decoding: measured on the loaded pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import frexp
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.profile import ParityBounds
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import PlainTarget, Target
from mlx_ddtree.target.rows import TreeRows
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tuning import stopwatch
from mlx_ddtree.tuning.timings import OutOfTime, Timings

SAMPLE = (
    "Write a function that returns the sum of the even numbers in a list.\n"
    "def sum_even(numbers: list[int]) -> int:\n    return sum(n for n in numbers if n % 2 == 0)\n"
)
STEPS = 48
"""Tokens of the sample's continuation that are compared."""
LONG_STEPS = 16
"""Tokens that are compared behind a long text."""
FEW_STEPS, FEW_LONG_STEPS = 18, 8
"""The same for models whose steps are slow: one forward of every kind, and a row behind it."""
WIDTHS = (2, 4, 8, 16)
"""Rows of a forward whose rounding is measured."""
LONG_TEXT = 384
LONGEST_TEXT = 1536
"""Tokens of the long text: enough that sliding windows have wrapped, but never more than the second number."""
_TEXTS = (("short", WIDTHS), ("long", WIDTHS[-2:]))
PREFILL = 512
HIGH = 8
"""Logits of a row that could become the best."""
SAFETY = 2.0
UNMEASURED = 4.0
"""Steps between neighbouring numbers of the logits' type that count as rounding until it is measured."""
FINEST = 1e-3
"""The least margin that is trusted until rounding is measured: sums of 32 bits round by less."""
SIZE_UNKNOWN = 32.0
"""How large the best logits are taken to be before any was seen."""


@dataclass(frozen=True)
class _Plain:
    """Greedy tokens behind a prompt, and the logits (n, V) of each token's place, all by single rows.

    cache: behind all tokens of the prompt but the last.
    few: whether a step is so slow that only the first forward of each kind is compared.
    """

    prompt: list[int]
    tokens: list[int]
    logits: NDArray[np.float32]
    dtype: mx.Dtype
    cache: list[Any]
    few: bool


@dataclass
class _ByRows:
    """Logits of the places of a text, `width` rows at a time.

    logits: (n, V).  alone: of `places`, by a single row over the cache that forwards of several rows have filled.
    """

    logits: NDArray[np.float32]
    places: list[int]
    alone: NDArray[np.float32]


def measure_parity(pair: Pair, timings: Timings | None = None) -> ParityBounds:
    """Margins below which a choice is not trusted: twice the largest change seen in the difference of two high logits,
    against plain decoding of one text.

    Chains and bushy trees are measured, behind a short text and behind one that wraps sliding windows.  A sample can
    miss rounding that another text meets, so a bound is never below two steps of the logits' own type at their size.

    timings: what is known already, and how much time there is.
    """
    known = timings or Timings(None)
    with suppress(OutOfTime):
        take_parity(pair, known)
    return parity_bounds(pair, known)


def parity_bounds(pair: Pair, known: Timings) -> ParityBounds:
    """The margins that follow from what is known.

    Where that is not all, they are wide enough for what was not seen: more choices are made again, and tokens stay
    those of plain decoding.
    """
    missing = [
        kind for text, widths in _TEXTS for kind in _kinds(widths) if _name("cache", text, kind) not in known.seconds
    ]
    return _wide(pair, known) if missing else _bounds(known)


def take_parity(pair: Pair, known: Timings, step: float = 0.0) -> None:
    """Measure what is missing.  step: seconds of a step of plain decoding.  Raises OutOfTime."""
    for text, widths in _TEXTS:
        missing = [kind for kind in _kinds(widths) if _name("cache", text, kind) not in known.seconds]
        if not missing:
            continue
        # A text is compared as a whole: its plain steps would have to be made again for what is left.
        steps = FEW_STEPS if text == "short" else FEW_LONG_STEPS
        known.need_time(step * (steps + 2 * len(missing)))
        short = sample_prompt(pair)
        prompt = short if text == "short" else _long_prompt(pair, short)
        plain = _plainly(
            pair.target, prompt, *((STEPS, FEW_STEPS) if text == "short" else (LONG_STEPS, FEW_LONG_STEPS))
        )
        known.note(f"rounding: least {text}", _least_bound(plain))
        for kind in missing:
            measured = _by_rows(pair.target, plain, *kind)
            known.note(_name("rows", text, kind), _change(plain.logits, measured.logits))
            known.note(_name("cache", text, kind), _change(plain.logits[measured.places], measured.alone))


def expected_numbers() -> int:
    """How many numbers `take_parity` measures."""
    return 2 * 2 * (len(WIDTHS) + 2) + 2


def _kinds(widths: Sequence[int]) -> list[tuple[int, bool]]:
    """Forwards that are compared: their rows, and whether they are a bushy tree."""
    return [(width, bushy) for width in widths for bushy in (False, True)]


def _name(what: str, text: str, kind: tuple[int, bool]) -> str:
    width, bushy = kind
    return f"rounding: {what} {text} {width} {'tree' if bushy else 'chain'}"


def _bounds(known: Timings) -> ParityBounds:
    floor = max(_numbers(known, "least"))
    return ParityBounds(*(max(SAFETY * max(_numbers(known, what)), floor) for what in ("rows", "cache")))


def _wide(pair: Pair, known: Timings) -> ParityBounds:
    """Bounds while something was not measured."""
    dtype = logits_dtype(pair)
    least = max(_numbers(known, "least"), default=_steps(SAFETY, SIZE_UNKNOWN, dtype))
    wide = max(least * UNMEASURED / SAFETY, FINEST)
    seen = max([*_numbers(known, "rows"), *_numbers(known, "cache")], default=0.0)
    return ParityBounds(max(wide, SAFETY * seen), max(wide, SAFETY * seen))


def _numbers(known: Timings, what: str) -> list[float]:
    return [number for name, number in known.seconds.items() if name.startswith(f"rounding: {what} ")]


def logits_dtype(pair: Pair) -> mx.Dtype:
    """The type of the target's logits: that of its embeddings."""
    assert not isinstance(pair.target, PlainTarget)
    return pair.target.embed(mx.zeros((1, 1), mx.int32)).dtype


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


def _plainly(target: Target, prompt: list[int], steps: int, few: int) -> _Plain:
    """`steps` greedy tokens from the prompt's last one on, a row at a time; `few` where the second step is slow."""
    cache = _filled_cache(target, prompt)
    before = target.mark(cache)
    rows: list[NDArray[np.float32]] = []
    tokens = [prompt[-1]]
    slow = False
    while len(rows) < (few if slow else steps):
        start = stopwatch.now()
        hidden, _ = target.forward(mx.array([[tokens[-1]]]), cache)
        logits = target.unembed(hidden[0])
        rows.append(np.array(logits.astype(mx.float32)))
        tokens.append(int(rows[-1].argmax()))
        if len(rows) == 2:
            slow = stopwatch.now() - start >= stopwatch.SLOW
    target.rewind(cache, before)
    return _Plain(prompt, tokens[:-1], np.concatenate(rows), logits.dtype, cache, slow)


def _by_rows(target: Target, plain: _Plain, width: int, bushy: bool) -> _ByRows:
    """The plain text's logits as trees are verified, and at the places behind a forward also by a single row."""
    cache = plain.cache
    untouched = target.mark(cache)
    rows: list[NDArray[np.float32]] = []
    places, alone = [], []
    for start, stop in _parts(plain, width, bushy):
        # 1. The next tokens as a path through a tree of `width` rows, which is then committed.
        tree, path = _tree_along(plain.tokens[start:], width, bushy)
        tree_rows = TreeRows(tree, len(plain.prompt) - 1 + start, len(tree))
        hidden, _, pending = target.forward_rows(mx.array(tree.token_ids)[None], tree_rows, cache)
        pending.commit(path)
        rows.append(np.array(target.unembed_tree(hidden[0])[mx.array(path)].astype(mx.float32)))
        if stop == len(plain.tokens):
            break
        # 2. A row of its own, over the cache that forwards of several rows have filled; undone again.
        before = target.mark(cache)
        hidden, _ = target.forward(mx.array([[plain.tokens[stop]]]), cache)
        alone.append(np.array(target.unembed(hidden[0]).astype(mx.float32)))
        places.append(stop)
        target.rewind(cache, before)
    target.rewind(cache, untouched)
    return _ByRows(np.concatenate(rows), places, np.concatenate(alone) if alone else plain.logits[:0])


def _parts(plain: _Plain, width: int, bushy: bool) -> Iterator[tuple[int, int]]:
    """Where forwards of so many rows begin and end in the text."""
    start = 0
    while start < len(plain.tokens):
        _, path = _tree_along(plain.tokens[start:], width, bushy)
        yield start, start + len(path)
        start += len(path)
        if plain.few:
            return


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
    """Largest change of a difference between two of a row's HIGH best logits; 0 of no rows."""
    plain = plain[: len(by_rows)]
    best = np.argsort(-plain, axis=-1)[:, :HIGH]
    moved = np.take_along_axis(by_rows - plain, best, axis=-1)
    return float((moved.max(axis=-1) - moved.min(axis=-1)).max(initial=0.0))


def _least_bound(plain: _Plain) -> float:
    """SAFETY steps between neighbouring numbers of the logits' type, at the size of the best logits."""
    best = np.sort(plain.logits, axis=-1)[:, -HIGH:]
    return _steps(SAFETY, max(float(np.abs(best).max()), 1.0), plain.dtype)


def _steps(count: float, size: float, dtype: mx.Dtype) -> float:
    """So many steps between neighbouring numbers of a type, at that size."""
    _, exponent = frexp(size)
    return count * mx.finfo(dtype).eps * 2.0 ** (exponent - 1)
