"""A drafter's first weights in closed form: before its first step it predicts what a linear map of the target's states
can.

A random drafter's MASK rows say the same whatever the text is, and thousands of blocks pass before its attention has
found
the two rows that matter: the bonus token in front of the block and the newest row of the context. Here they are found
first (`attention_start.py`), and what the last tapped layer and the bonus token say linearly of the target's final
hidden state is put into values and output projection by ridge regression; the rest starts random and small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.attention_start import Rows, start_attention
from mlx_ddtree.training.examples import Example

Array = NDArray[np.floating[Any]]
SAMPLE_TOKENS = 8192
"""Tokens of answers that the regression reads: some ten for every number of a row of a thousand."""
RIDGE = 0.03
"""The penalty, as a share of the mean square of the inputs."""
REST = 0.25
"""What random output projections are scaled by, so that they do not drown what is known."""
OTHER_TAPS = 0.05
"""Likewise for the layers that the start does not use: training finds what they know."""
NORM_SCALES = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Tried for the final norm, as parts of the target's: an uncertain drafter has to speak softly."""


@dataclass(frozen=True)
class Sample:
    """What a target computed over some answers.

    tokens (n,) that stand at anchors.  features (n, taps * D) of the position before.  hidden (n, D): the final
    normalised states at the anchors.  labels (n,): the tokens behind them.  prompts (m, taps * D): features of the
    prompts' tokens, the first one's among them, whose size is like no other's.
    """

    tokens: NDArray[np.int32]
    features: Array
    hidden: Array
    labels: NDArray[np.int32]
    prompts: Array


def take_sample(target: TreeTarget, examples: Sequence[Example], most: int = SAMPLE_TOKENS) -> Sample:
    """Answers' tokens with the target's states, from sequences spread evenly over `examples`.

    Computes up to `most` tokens of answers, with the taps that the target has.
    """
    mean = sum(len(example.token_ids) - example.start for example in examples) / len(examples)
    stride = max(1, int(len(examples) * mean / most))
    parts: list[tuple[NDArray[Any], ...]] = []
    for example in examples[::stride]:
        tokens = np.array(example.token_ids, np.int32)
        first = max(1, example.start)
        if len(tokens) < first + 2:
            continue
        hidden, features = target.forward(mx.array(tokens[None, :-1]), target.make_cache())
        assert features is not None, "the target's taps are not set"
        states = np.array(features[0].astype(mx.float32))
        final = np.array(hidden[0, first:].astype(mx.float32))
        parts.append((tokens[first:-1], states[first - 1 : -1], final, tokens[first + 1 :], states[:first]))
    return Sample(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def channel_rms(features: Array) -> NDArray[np.float32]:
    """(n, F) -> (F,), never 0: what features are divided by, as single channels have a thousand times others' size."""
    rms = np.sqrt(np.square(features, dtype=np.float64).mean(axis=0))
    least = 1e-3 * max(float(rms.mean()), 1e-6)
    return np.asarray(np.maximum(rms, least), np.float32)


def start_in_closed_form(drafter: DFlashDrafter, target: TreeTarget, sample: Sample, rms: Array) -> None:
    """Set a random drafter's weights as the module's text says; its fc then reads features divided by `rms` (F,)."""
    width = drafter.config.hidden_size
    gains = np.array(target.anatomy.norm_gains)

    # 1. Context rows: the last tapped layer, every channel at its own scale, and a little of the others.
    fc = np.array(drafter.fc.weight) * OTHER_TAPS
    fc[:, -width:] = np.eye(width, dtype=np.float32)
    drafter.fc.weight = mx.array(fc)
    context = normed(sample.features[:, -width:] / rms[-width:])

    # 2. The first layer's attention, which also takes the MASK's own embedding away: through a tied head it would say
    # MASK itself.  Later layers begin small.
    mask = embedded(target, drafter, np.array([drafter.config.mask_token_id], np.int32))
    wanted = sample.hidden / np.where(np.abs(gains) < 1e-3, 1.0, gains)
    size = max(1.0, 10.0 * float(np.sqrt(np.square(mask).mean())))
    prompts = normed(sample.prompts[:, -width:] / rms[-width:])
    bonus = normed(embedded(target, drafter, sample.tokens))
    root_asks = drafter.config.logits_start == 0
    rows = Rows(bonus, context, normed(mask)[0], wanted * size - mask, prompts, root_asks)
    start_attention(drafter.layers[0].self_attn, rows, head_metric(target, gains), RIDGE)
    for index, layer in enumerate(drafter.layers):
        layer.mlp.down_proj.weight = layer.mlp.down_proj.weight * REST
        if index:
            layer.self_attn.o_proj.weight = layer.self_attn.o_proj.weight * REST
    mx.eval(drafter.parameters())


def head_metric(target: TreeTarget, gains: Array) -> Array:
    """(D, D): how far two states before the final norm's gains lie apart in logits, as a quadratic form."""
    width = len(gains)
    head = np.array(target.head(mx.eye(width, dtype=mx.float32)).astype(mx.float32))  # (D, V)
    weighted = head * gains[:, None]
    return (weighted @ weighted.T) / head.shape[1]


def embedded(target: TreeTarget, drafter: DFlashDrafter, tokens: NDArray[np.int32]) -> Array:
    """(n,) -> (n, D) as the drafter's blocks begin."""
    rows = drafter.scale_embeddings(target.embed(mx.array(tokens)[None]).astype(mx.float32))
    return np.array(rows[0])


def normed(rows: Array) -> Array:
    """Rows at root mean square 1."""
    return rows / np.sqrt(np.square(rows).mean(axis=-1, keepdims=True) + 1e-6)
