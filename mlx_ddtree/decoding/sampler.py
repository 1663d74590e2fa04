"""How a token is drawn: mlx-lm's filters, then noise that depends on the position alone.

A seeded draw at absolute position p uses Gumbel noise made from the pair (seed, p).  So the token chosen after a prefix
is the same function of that prefix, whatever tree, block or method led there: a seed reproduces a run under every
budget, and plain decoding gives the same tokens.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, apply_xtc, greedy_sampler

from mlx_ddtree.decoding.filter_edges import Crossing, across_min_p, across_top_k, across_top_p, both, top_p_edges
from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.topk import log_sums_by_numpy, suits_numpy, top_margins

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
        return self.has_nucleus or self.min_p > 0 or self.top_k > 0 or self.xtc_probability > 0

    @property
    def has_nucleus(self) -> bool:
        """Whether top-p drops anything; it reads normalised logits."""
        return 0 < self.top_p < 1

    @property
    def has_simple_edges(self) -> bool:
        """Whether tokens are drawn, and each filter keeps the best of them, down to one edge."""
        return self.temp > 0 and self.xtc_probability == 0

    def choose(self, logits: mx.array, depths: Sequence[int], start: int, slack: float = 0.0) -> mx.array:
        """One token per row (N,), by Gumbel-max.  logits (N, V); row i decides position start + depths[i].

        Neither the draw nor a filter needs normalised logits, whose sum of exponentials is half of a draw's work on a
        CPU; but top-p adds up exponentials of its own, which must not overflow.

        slack: lets through what the filters drop by no more than so much of a logit; negative: drops more.
        """
        if self.temp == 0:
            return mx.argmax(logits, axis=-1)
        if self.has_nucleus:
            logits = log_probs_of(logits)
        return mx.argmax(self.scores(self._filtered(logits, depths, start, slack), depths, start), axis=-1)

    def scores(self, logits: mx.array, depths: Sequence[int], start: int) -> mx.array:
        """(N, V) float32 of which each row's largest is drawn, above temperature 0; arguments as for `choose`."""
        deepest = max(depths)
        noise = mx.stack([self._noise(start + depth, logits.shape[-1]) for depth in range(deepest + 1)])
        if list(depths) != list(range(deepest + 1)):  # rows of a tree that have the same depth have the same noise
            noise = noise[mx.array(list(depths))]
        return logits.astype(mx.float32) * (1 / self.temp) + noise

    def choose_and_doubt(
        self, logits: mx.array, depths: Sequence[int], start: int, bound: float
    ) -> tuple[mx.array, mx.array]:
        """The token of every row (N,), and whether rounding could have made it another one (N,) bool; as `choose`.

        bound: how far rounding can move two logits of a row against each other.  Not for XTC, which drops the best.
        """
        if self.has_nucleus:
            logits = log_probs_of(logits)
        scores = self.scores(logits, depths, start)
        if not self.filters:
            chosen = mx.argmax(scores, axis=-1)
            return chosen, top_margins(scores, chosen) < bound / self.temp
        # 1. What the filters keep, and the best of it.
        nucleus = self._nucleus(logits, 0.0)
        kept = self._beyond_nucleus(nucleus, depths, start, 0.0) > -mx.inf
        chosen = mx.argmax(mx.where(kept, scores, -mx.inf), axis=-1)
        # 2. What rounding could move across their edges, and whether any of it comes near.
        crossing = self._across_edges(logits, nucleus > -mx.inf, kept, chosen[:, None], bound)
        rivals = mx.where(kept | crossing.enters, scores, -mx.inf)
        return chosen, crossing.leaves | (top_margins(rivals, chosen) < bound / self.temp)

    def _across_edges(
        self, logits: mx.array, nucleus: mx.array, kept: mx.array, chosen: mx.array, bound: float
    ) -> Crossing:
        """What could cross the filters' edges; nucleus, kept: (N, V) bool, what top-p and what all of them left."""
        crossings = []
        if self.has_nucleus:
            crossings.append(across_top_p(logits, nucleus, chosen, self.top_p, bound))
        if self.min_p > 0:
            crossings.append(across_min_p(logits, chosen, self.min_p, self._least(logits), bound))
        if 0 < self.top_k < logits.shape[-1]:
            crossings.append(across_top_k(logits, kept, chosen, self.top_k, bound))
        nothing_drops = Crossing(mx.array(True), mx.array(False))  # as with a top-k of the whole vocabulary
        return reduce(both, crossings or [nothing_drops])

    def _filtered(self, logits: mx.array, depths: Sequence[int], start: int, slack: float) -> mx.array:
        """(N, V) logits with what top-p, min-p, XTC and top-k drop at -inf."""
        return self._beyond_nucleus(self._nucleus(logits, slack), depths, start, slack)

    def _least(self, logits: mx.array) -> int:
        """Tokens that min-p keeps at least."""
        return min(self.min_tokens_to_keep, logits.shape[-1])

    def _nucleus(self, logits: mx.array, slack: float) -> mx.array:
        """(N, V) logits, which are normalised for top-p, with what it drops at -inf."""
        if not self.has_nucleus:
            return logits
        top_p = min(self.top_p * (1 + slack), 1.0)
        if not _read_by_numpy(logits):
            return apply_top_p(logits, top_p)
        edges = top_p_edges(np.asarray(logits), top_p)
        return mx.where(logits < mx.array(edges), -mx.inf, logits)

    def _beyond_nucleus(self, logits: mx.array, depths: Sequence[int], start: int, slack: float) -> mx.array:
        """(N, V) what top-p left, with what min-p, XTC and top-k drop at -inf."""
        if self.min_p > 0:
            logits = apply_min_p(logits, min(self.min_p * math.exp(-slack), 1.0), self._least(logits))
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


def log_probs_of(logits: mx.array) -> mx.array:
    """(N, V) normalised logits."""
    if not _read_by_numpy(logits):
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # a model whose logits overflow
        log_sums = log_sums_by_numpy(np.asarray(logits))
    return logits - mx.array(log_sums)


def _read_by_numpy(logits: mx.array) -> bool:
    """Whether the host reads these rows at once, in the processor's own memory, where MLX computes exponentials and
    sorts one element at a time.  Several rows are a verification's, which is waited for anyway."""
    return len(logits) > 1 and suits_numpy(logits)


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
