"""The target's choice at every tree node: argmax, or a draw that depends on the position alone.

A seeded draw at absolute position p uses Gumbel noise made from the pair (seed, p).  So the token
chosen after a prefix is the same function of that prefix, whatever tree, block or method led
there: a seed reproduces a run under every budget, and plain decoding gives the same tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
from mlx_lm.sample_utils import LogitsProcessor, apply_min_p, apply_top_k, apply_top_p, greedy_sampler

from mlx_ddtree.errors import OptionError
from mlx_ddtree.tree import DraftTree

MlxLmSampler = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Sampler:
    """mlx-lm's filters in mlx-lm's order, then a draw from counter-based noise.

    seed: None draws a fresh one, kept in the instance.
    """

    temp: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    min_tokens_to_keep: int = 1
    seed: int = field(default_factory=lambda: secrets.randbits(32))

    def __post_init__(self) -> None:
        if self.temp < 0:
            raise OptionError(f"temperature {self.temp} is negative; use 0 for greedy decoding")
        if not 0 <= self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise OptionError(f"top_p {self.top_p} and min_p {self.min_p} must lie between 0 and 1")
        if self.top_k < 0 or self.min_tokens_to_keep < 1:
            raise OptionError("top_k must be at least 0 and min_tokens_to_keep at least 1")

    def filtered(self, log_probs: mx.array) -> mx.array:
        """(N, V) log-probabilities with the tokens that top-p, min-p and top-k drop at -inf."""
        if 0 < self.top_p < 1:
            log_probs = apply_top_p(log_probs, self.top_p)
        if self.min_p > 0:
            log_probs = apply_min_p(log_probs, self.min_p, self.min_tokens_to_keep)
        if 0 < self.top_k < log_probs.shape[-1]:
            log_probs = apply_top_k(log_probs, self.top_k)
        return log_probs

    def choose(self, log_probs: mx.array, depths: Sequence[int], start: int) -> mx.array:
        """One token per row (Gumbel-max).  log_probs (N, V); row i decides position start + depths[i]."""
        if self.temp == 0:
            return mx.argmax(log_probs, axis=-1)
        noise = mx.stack([self._noise(start + d, log_probs.shape[-1]) for d in range(max(depths) + 1)])
        scaled = self.filtered(log_probs).astype(mx.float32) * (1 / self.temp)
        return mx.argmax(scaled + noise[mx.array(list(depths))], axis=-1)

    def _noise(self, position: int, vocab_size: int) -> mx.array:
        key = mx.array([self.seed & 0xFFFFFFFF, position], mx.uint32)
        return mx.random.gumbel((vocab_size,), key=key)


def make_sampler(
    temp: float = 0.0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    min_tokens_to_keep: int = 1,
    top_k: int = 0,
    seed: int | None = None,
) -> Sampler:
    """Like mlx_lm.sample_utils.make_sampler, with a seed of its own."""
    options = {} if seed is None else {"seed": seed}
    return Sampler(temp, top_p, min_p, top_k, min_tokens_to_keep, **options)


def is_greedy(sampler: Sampler | MlxLmSampler) -> bool:
    """Whether it takes the argmax; not known of other functions than mlx-lm's greedy_sampler."""
    return sampler is greedy_sampler or (isinstance(sampler, Sampler) and sampler.temp == 0)


def choose_tokens(
    logits: mx.array,
    tree: DraftTree,
    start: int,
    context: Sequence[int],
    sampler: Sampler | MlxLmSampler,
    processors: Sequence[LogitsProcessor] = (),
) -> tuple[mx.array, mx.array]:
    """What the target says after every node of the tree.

    logits: (N, V).  start: absolute position of the token that follows the root.
    context: the token ids up to the root, root included; processors see each node's own path.
    Returns chosen token ids (N,) and the processed logits (N, V).
    """
    for processor in processors:
        logits = _process(logits, tree, context, processor)
    if is_greedy(sampler):
        return mx.argmax(_comparable(logits), axis=-1), logits
    log_probs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    if isinstance(sampler, Sampler):
        return sampler.choose(log_probs, tree.depths.tolist(), start), logits
    return sampler(log_probs), logits


def _comparable(logits: mx.array) -> mx.array:
    """mlx-lm takes the argmax of 16-bit log-probabilities, whose rounding makes ties of its own; in
    fp32 the subtraction cannot reorder logits that differ by more than rounding."""
    if logits.dtype == mx.float32:
        return logits
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _process(logits: mx.array, tree: DraftTree, context: Sequence[int], processor: LogitsProcessor) -> mx.array:
    rows = []
    for node in range(len(tree)):
        path = [*context, *tree.token_ids[tree.path_to(node)[1:]].tolist()]
        rows.append(processor(mx.array(path), logits[node : node + 1]))
    return mx.concatenate(rows)
