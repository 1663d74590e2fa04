"""Draft: one forward of the drafter gives the candidates of the next L positions."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.decoding.sampling import MlxLmSampler, Sampler, is_greedy
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.topk import finish_top_k, start_top_k
from mlx_ddtree.tree.planner import Candidates


class StartedDraft(NamedTuple):
    """A draft under way on the device: what finish_top_k needs."""

    result: mx.array
    top_k: int


def start_draft(state: DecodeState, block_size: int, top_k: int) -> StartedDraft:
    """Send the drafter off over [root, MASK, ...], without waiting for it."""
    target, drafter = state.pair.target, state.pair.drafter
    if drafter is None:
        raise ValueError("a draft needs a drafter")
    block = mx.array([[state.root] + [drafter.config.mask_token_id] * (block_size - 1)])
    hidden = drafter(target.embed(block), state.take_features(), state.drafter_cache)
    logits = drafter.scale_logits(target.unembed(hidden[0, 1:]))
    top_k = min(top_k, logits.shape[-1])
    result = start_top_k(logits, top_k)
    mx.async_eval(result)
    return StartedDraft(result, top_k)


def finish_draft(started: StartedDraft, sampler: Sampler | MlxLmSampler | None = None) -> Candidates:
    """The `top_k` best tokens of each of the L = block_size - 1 positions after the root.

    Drafting is greedy at every temperature: the candidates are a fixed function of the context.  With a
    `sampler`, those that its filters drop have probability 0.
    """
    token_ids, log_probs = finish_top_k(*started)
    if isinstance(sampler, Sampler) and not is_greedy(sampler):
        log_probs = filtered(log_probs, sampler)
    return Candidates(token_ids, log_probs)


def draft(state: DecodeState, block_size: int, top_k: int) -> Candidates:
    """Start a draft and wait for it."""
    return finish_draft(start_draft(state, block_size, top_k))


def filtered(log_probs: NDArray[np.float32], sampler: Sampler) -> NDArray[np.float32]:
    """(L, K) best log-probabilities without the candidates that the sampler's filters will never let through.

    The temperature is left out: drafters are over-confident, and trees from their own marginals accept more
    than from tempered ones (scripts/random_leaf_gain.py measured both; 1 % at temperature 0.5, none at 1).
    """
    kept = np.exp(log_probs)
    before = np.cumsum(kept, axis=-1) - kept
    drop = np.zeros(kept.shape, np.bool_)
    if 0 < sampler.top_p < 1:
        drop |= before >= sampler.top_p
    if sampler.min_p > 0:
        drop |= kept < sampler.min_p * kept[:, :1]
    if sampler.top_k > 0:
        drop[:, sampler.top_k :] = True
    drop[:, : sampler.min_tokens_to_keep] = False
    return np.where(drop, np.float32(-np.inf), log_probs)
