"""Draft: one forward of the drafter gives the candidates of the next L positions."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.topk import top_k_log_probs


class Candidates(NamedTuple):
    """token_ids (L, K) int32 and log_probs (L, K) float32 over the whole vocabulary, descending."""

    token_ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]


def draft(state: DecodeState, block_size: int, top_k: int) -> Candidates:
    """The `top_k` best tokens of each of the L = block_size - 1 positions after the root.

    Drafting is greedy at every temperature: the candidates are a fixed function of the context.
    """
    target, drafter = state.pair.target, state.pair.drafter
    if drafter is None:
        raise ValueError("draft() needs a drafter")
    block = mx.array([[state.root] + [drafter.config.mask_token_id] * (block_size - 1)])
    hidden = drafter(target.embed(block), state.take_features(), state.drafter_cache)
    logits = drafter.scale_logits(target.unembed(hidden[0, 1:]))
    return Candidates(*top_k_log_probs(logits, min(top_k, logits.shape[-1])))
