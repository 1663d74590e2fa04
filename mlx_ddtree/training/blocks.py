"""Blocks to train on: a clean token at a random anchor, MASKs behind it, and the tokens that they stand for.

A block starts at an anchor a (a clean token, as the bonus token is in decoding) and goes on with MASKs; its slots
k = 1..L learn the tokens a + k (arXiv 2602.06036).  The first slot is the first MASK's row, or the anchor's own in
DSpark's blocks (arXiv 2607.05147), which then have one MASK less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.training.batches import Batch


@dataclass(frozen=True)
class Blocks:
    """What the drafter sees of A blocks of B rows in each of S sequences, and what its L slots should say.

    anchors: (S, A) int32.  token_ids: (S, A, B) int32, [clean token, MASK, ...]; B is L + logits_start.
    labels: (S, A, L) int32.  weights: (S, A, L) float32, 0 past the sequence's end.
    """

    anchors: mx.array
    token_ids: mx.array
    labels: mx.array
    weights: mx.array

    @property
    def previous(self) -> mx.array:
        """(S, A, L) int32: the true token before each label."""
        return mx.concatenate([self.token_ids[..., :1], self.labels[..., :-1]], axis=-1)

    def rows(self, which: slice) -> Blocks:
        """The blocks of some of the sequences."""
        return Blocks(self.anchors[which], self.token_ids[which], self.labels[which], self.weights[which])


def default_gamma(block_size: int) -> float:
    """Decay of the slots' weights: 4, 5, 7 for blocks of 8, 10, 16 as published, straight lines between."""
    return float(np.interp(block_size, [2, 8, 10, 16, 32], [1.0, 4.0, 5.0, 7.0, 12.0]))


def sample_anchors(batch: Batch, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """(S, count) random positions from the prompt's last token to the last but one; distinct if there are enough."""
    rows = []
    for start, length in zip(batch.starts, batch.lengths, strict=True):
        places = np.arange(start, length - 1)
        rows.append(np.sort(rng.choice(places, count, replace=len(places) < count)))
    return np.stack(rows).astype(np.int32)


def make_blocks(batch: Batch, anchors: NDArray[np.int32], config: DrafterConfig, gamma: float) -> Blocks:
    """Blocks at `anchors` (S, A), as a drafter of `config` drafts; slot k weighs exp(-(k - 1) / gamma)."""
    slots = np.arange(1, config.block_size)
    places = anchors[:, :, None] + slots
    inside = places < batch.lengths[:, None, None]
    places = np.minimum(places, batch.token_ids.shape[1] - 1).reshape(len(anchors), -1)
    labels = np.take_along_axis(batch.token_ids, places, axis=1).reshape(inside.shape)
    token_ids = np.full((*anchors.shape, config.rows(config.block_size)), config.mask_token_id, np.int32)
    token_ids[:, :, 0] = np.take_along_axis(batch.token_ids, anchors, axis=1)
    weights = np.exp(-(slots - 1) / gamma) * inside
    return Blocks(mx.array(anchors), mx.array(token_ids), mx.array(labels), mx.array(weights.astype(np.float32)))


def thin_out(blocks: Blocks, rng: np.random.Generator) -> Blocks:
    """Slots kept with probability of their weight, which is then 1: the same loss in expectation by fewer head rows."""
    weights = np.array(blocks.weights)
    kept = (rng.random(weights.shape) < weights).astype(np.float32)
    return replace(blocks, weights=mx.array(kept))
