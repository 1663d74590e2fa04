"""The target's choice at every tree node: argmax, or a draw that depends on the position alone.

A seeded draw at absolute position p uses Gumbel noise made from the pair (seed, p).  So the token
chosen after a prefix is the same function of that prefix, whatever tree, block or method led
there: a seed reproduces a run under every budget, and plain decoding gives the same tokens.

A choice is `close` where a rounding of the logits by no more than a bound could have made it another one
(decoding/parity.py says what happens then).
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import LogitsProcessor, apply_min_p, apply_top_k, apply_top_p, apply_xtc, greedy_sampler
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.token_mask import masked
from mlx_ddtree.kernels.topk import top_margins
from mlx_ddtree.tree import DraftTree

MlxLmSampler = Callable[[mx.array], mx.array]
GREEDY_BELOW = 1e-6
"""Temperatures below it are temperature 0: fp32 could not hold the logits that they divide."""
_XTC_STREAM = 0x9E3779B9
"""Keeps the coins of XTC apart from the noise of the draw at the same position."""


@dataclass(frozen=True)
class Sampler:
    """mlx-lm's filters in mlx-lm's order, then a draw from counter-based noise.

    temp, top_p, min_p, min_tokens_to_keep, top_k, xtc_*: as in mlx_lm.sample_utils.make_sampler.
    seed: of the noise; a fresh one is drawn where none is given, and kept in the instance.
    repeatable: whether the seed was asked for, so that its text is to be the same by every method and budget even
        where rounding could decide (decoding/parity.py).
    """

    temp: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    min_tokens_to_keep: int = 1
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    xtc_special_tokens: tuple[int, ...] = ()
    repeatable: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.temp):
            raise OptionError(f"temperature {self.temp} is no number; use 0 for greedy decoding, or a positive one")
        if self.temp < 0:
            raise OptionError(f"temperature {self.temp} is negative; use 0 for greedy decoding")
        if self.temp < GREEDY_BELOW:
            object.__setattr__(self, "temp", 0.0)
        if not 0 <= self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise OptionError(f"top_p {self.top_p} and min_p {self.min_p} must lie between 0 and 1")
        if self.top_k < 0 or self.min_tokens_to_keep < 1:
            raise OptionError("top_k must be at least 0 and min_tokens_to_keep at least 1")
        if not 0 <= self.xtc_probability <= 1 or not 0 <= self.xtc_threshold <= 0.5:
            raise OptionError(
                f"xtc_probability {self.xtc_probability} must lie between 0 and 1, "
                f"and xtc_threshold {self.xtc_threshold} between 0 and 0.5"
            )

    @property
    def filters(self) -> bool:
        """Whether some tokens can never be drawn."""
        return 0 < self.top_p < 1 or self.min_p > 0 or self.top_k > 0 or self.xtc_probability > 0

    def choose(self, logits: mx.array, depths: Sequence[int], start: int, slack: float = 0.0) -> mx.array:
        """One token per row (N,), by Gumbel-max.  logits (N, V); row i decides position start + depths[i].

        Neither the draw nor a filter needs normalised logits, whose sum of exponentials is half of a draw's work on a
        CPU; but top-p adds up exponentials of its own, which must not overflow.

        slack: lets through what the filters drop by no more than so much of a logit; negative: drops more.
        """
        if self.temp == 0:
            return mx.argmax(logits, axis=-1)
        if 0 < self.top_p < 1:
            logits = _log_probs(logits)
        return mx.argmax(self.scores(self._filtered(logits, depths, start, slack), depths, start), axis=-1)

    def scores(self, logits: mx.array, depths: Sequence[int], start: int) -> mx.array:
        """(N, V) float32 of which each row's largest is drawn, above temperature 0; arguments as for `choose`."""
        deepest = max(depths)
        noise = mx.stack([self._noise(start + depth, logits.shape[-1]) for depth in range(deepest + 1)])
        if list(depths) != list(range(deepest + 1)):  # rows of a tree that have the same depth have the same noise
            noise = noise[mx.array(list(depths))]
        return logits.astype(mx.float32) * (1 / self.temp) + noise

    def _filtered(self, logits: mx.array, depths: Sequence[int], start: int, slack: float) -> mx.array:
        """(N, V) logits with what top-p, min-p, XTC and top-k drop at -inf."""
        keep = min(self.min_tokens_to_keep, logits.shape[-1])
        if 0 < self.top_p < 1:
            logits = apply_top_p(logits, min(self.top_p * (1 + slack), 1.0))
        if self.min_p > 0:
            logits = apply_min_p(logits, min(self.min_p * math.exp(-slack), 1.0), keep)
        if self.xtc_probability > 0:
            logits = self._without_top_choices(logits, depths, start, slack)
        if 0 < self.top_k < logits.shape[-1]:
            logits = _top_k(logits, self.top_k, slack)
        return logits

    def _without_top_choices(self, logits: mx.array, depths: Sequence[int], start: int, slack: float) -> mx.array:
        """XTC with a coin of its own for every position, where mlx-lm's has one for a whole call."""
        threshold = min(self.xtc_threshold * math.exp(slack), 0.5)
        cut = apply_xtc(logits, 1.0, threshold, list(self.xtc_special_tokens))
        coins = mx.stack([mx.random.uniform(key=self._key(start + d, _XTC_STREAM)) for d in range(max(depths) + 1)])
        heads = coins[mx.array(list(depths))] <= self.xtc_probability
        return mx.where(heads[:, None], cut, logits)

    def _noise(self, position: int, vocab_size: int) -> mx.array:
        return mx.random.gumbel((vocab_size,), key=self._key(position))

    def _key(self, position: int, stream: int = 0) -> mx.array:
        return mx.array([(self.seed ^ stream) & 0xFFFFFFFF, position], mx.uint32)


def make_sampler(
    temp: float = 0.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    min_tokens_to_keep: int = 1,
    top_k: int = 0,
    xtc_probability: float = 0.0,
    xtc_threshold: float = 0.1,
    xtc_special_tokens: Sequence[int] | None = None,
    seed: int | None = None,
) -> Sampler:
    """A sampler as mlx_lm.sample_utils.make_sampler makes one, with a seed of its own.

    seed: makes the text repeatable, whatever the method and the budget; None draws another text every time.

    Raises OptionError for values out of range.
    """
    repeatable = {} if seed is None else {"seed": seed, "repeatable": True}
    return Sampler(
        temp=temp,
        top_p=top_p,
        min_p=min_p,
        top_k=top_k,
        min_tokens_to_keep=min_tokens_to_keep,
        xtc_probability=xtc_probability,
        xtc_threshold=xtc_threshold,
        xtc_special_tokens=tuple(xtc_special_tokens or ()),
        **repeatable,  # type: ignore[arg-type]
    )


def is_greedy(sampler: Sampler | MlxLmSampler) -> bool:
    """Whether a sampler takes the argmax; not known of other functions than mlx-lm's greedy_sampler."""
    return sampler is greedy_sampler or (isinstance(sampler, Sampler) and sampler.temp == 0)


def is_repeatable(sampler: Sampler | MlxLmSampler) -> bool:
    """Whether a text is to be the same by every method: an argmax, or draws from a seed that was asked for."""
    return is_greedy(sampler) or (isinstance(sampler, Sampler) and sampler.repeatable)


class Choices(NamedTuple):
    """What the target says after every node of a tree; lazy.

    token_ids: (N,).
    logits: (N, V), processed.
    close: (N,) bool, where rounding could have made it another token; None where nobody asked.
    """

    token_ids: mx.array
    logits: mx.array
    close: mx.array | None


def choose_tokens(
    logits: mx.array,
    tree: DraftTree,
    start: int,
    context: Sequence[int],
    sampler: Sampler | MlxLmSampler,
    processors: Sequence[LogitsProcessor] = (),
    bound: float = 0.0,
    allowed: NDArray[np.uint32] | None = None,
) -> Choices:
    """The target's choice after every node of the tree.

    logits: (N, V).  start: absolute position of the token that follows the root.
    context: the token ids up to the root, root included; processors see each node's own path.
    bound: how far rounding can move two logits of a row against each other (ParityBounds); 0 does not ask.
    allowed: (N, W) the tokens that a grammar allows after each node, as sets (kernels/token_mask.py); None: all.
    """
    processed = _processed(logits, tree, context, processors, allowed)
    asked = bound > 0 and is_repeatable(sampler)
    if asked and isinstance(sampler, Sampler) and sampler.temp > 0 and not sampler.filters and not processors:
        scores = sampler.scores(processed, tree.depths.tolist(), start)
        chosen = mx.argmax(scores, axis=-1)
        return Choices(chosen, processed, top_margins(scores, chosen) < bound / sampler.temp)
    chosen = _draw(processed, tree, start, sampler)
    if not asked:
        return Choices(chosen, processed, None)
    if is_greedy(sampler) and not processors:
        return Choices(chosen, processed, top_margins(processed, chosen) < bound)
    # The choice against itself at the worst rounding: its own logit lower, all others higher.  What processors make
    # of a logit may depend on its sign, so there both sides move by the whole bound.
    lowered = mx.put_along_axis(mx.zeros_like(logits), chosen[:, None], mx.array(-bound, logits.dtype), axis=-1)
    moved = logits + lowered if not processors else logits + bound + 2 * lowered
    moved = _processed(moved, tree, context, processors, allowed)
    close = _draw(moved, tree, start, sampler, bound) != chosen
    if isinstance(sampler, Sampler) and sampler.filters and sampler.temp > 0:
        close |= _draw(moved, tree, start, sampler, -bound) != chosen
    return Choices(chosen, processed, close)


def _draw(
    logits: mx.array, tree: DraftTree, start: int, sampler: Sampler | MlxLmSampler, slack: float = 0.0
) -> mx.array:
    """(N,) token ids of processed logits (N, V)."""
    if is_greedy(sampler):
        return mx.argmax(_comparable(logits), axis=-1)
    if isinstance(sampler, Sampler):
        return sampler.choose(logits, tree.depths.tolist(), start, slack)
    # A foreign sampler wants log-probabilities, and may draw once for a whole call: every node gets a call of its own.
    log_probs = _log_probs(logits)
    return mx.concatenate([sampler(log_probs[node : node + 1]) for node in range(len(tree))])


def _comparable(logits: mx.array) -> mx.array:
    """What mlx-lm takes the argmax of: 16-bit log-probabilities, whose rounding makes ties of its own.

    In fp32 the subtraction cannot reorder logits that differ by more than rounding, and is left out.
    """
    if logits.dtype == mx.float32:
        return logits
    return _log_probs(logits)


def _log_probs(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _processed(
    logits: mx.array,
    tree: DraftTree,
    context: Sequence[int],
    processors: Sequence[LogitsProcessor],
    allowed: NDArray[np.uint32] | None,
) -> mx.array:
    """(N, V) logits after the processors, each of which sees the context and the node's own path.

    What a grammar does not allow is cut last, so that no processor can let it through.
    """
    if not processors:
        return logits if allowed is None else masked(logits, allowed)
    rows = []
    for node in range(len(tree)):
        path = tree.token_ids[tree.path_to(node)[1:]].tolist()
        token_ids = mx.array([*context, *path])
        row = logits[node : node + 1]
        for processor in processors:
            row = processor(token_ids, row)
        rows.append(row)
    processed = mx.concatenate(rows)
    return processed if allowed is None else masked(processed, allowed)


def _top_k(logits: mx.array, k: int, slack: float) -> mx.array:
    """mlx-lm's top-k, whose edge may lie `slack` lower (or, negative, higher) than the k-th best token."""
    if slack == 0:
        return apply_top_k(logits, k)
    best = mx.sort(logits, axis=-1)[:, ::-1]
    if slack > 0:
        kept = logits >= best[:, k - 1 : k] - slack
    else:
        kept = logits > best[:, k : k + 1] - slack
    return mx.where(kept, logits, mx.array(-mx.inf, logits.dtype))
