"""What training minimises: cross-entropy of all blocks' slots through the target's own head.

Shapes: S sequences of n tokens, A anchors each, blocks of B = L + 1, hidden size D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.dflash2 import selector_of
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import Batch
from mlx_ddtree.training.blocks import Blocks
from mlx_ddtree.training.forward import context_keys_values, draft_hidden, embed_blocks, target_features

HEAD_CHUNK = 1 << 24
"""Logits held at a time; with a vocabulary of 150k all rows together would take gigabytes."""


def slot_logits(target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array) -> mx.array:
    """(..., D) -> float32 (..., V), with the target's own head, as drafting computes them."""
    return drafter.scale_logits(target.head(hidden).astype(mx.float32))


def head_loss(
    target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, labels: mx.array, weights: mx.array
) -> mx.array:
    """Sum of weights * cross-entropy of rows (R, D) against labels (R,): a scalar.

    The head's rows times vocabulary outweigh all the drafter's work, so the gradient is found by
    hand with one softmax for the value and the gradient, instead of one each and several passes:
    d loss / d logits = w (softmax - one_hot(label)).  It enters the graph as hidden * gradient.
    """
    rows = max(1, HEAD_CHUNK // target.vocab_size)
    total = mx.array(0.0)
    for start in range(0, len(hidden), rows):
        part = hidden[start : start + rows]
        labels_part = labels[start : start + rows]
        weights_part = weights[start : start + rows]
        loss, gradient = _head_gradient(target, drafter, mx.stop_gradient(part), labels_part)
        gradient = mx.stop_gradient(gradient * weights_part[:, None])
        linear = (part.astype(mx.float32) * gradient).sum()  # its value is taken out again
        total = total + mx.stop_gradient((loss * weights_part).sum() - linear) + linear
    return total


def _head_gradient(
    target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, labels: mx.array
) -> tuple[mx.array, mx.array]:
    """Cross-entropy (R,) of every row and its gradient by `hidden`, (R, D) float32."""
    raw = target.head(hidden)
    probabilities = mx.softmax(drafter.scale_logits(raw.astype(mx.float32)), axis=-1)
    chosen = mx.take_along_axis(probabilities, labels[:, None], axis=-1)
    loss = -mx.log(mx.maximum(chosen[:, 0], 1e-37))
    by_logits = mx.put_along_axis(probabilities, labels[:, None], chosen - 1.0, axis=-1)
    if drafter.config.logit_scale != 1.0 or drafter.config.logit_softcap is not None:
        by_logits = mx.vjp(drafter.scale_logits, [raw.astype(mx.float32)], [by_logits])[1][0]
    by_hidden = mx.vjp(target.head, [hidden], [by_logits.astype(raw.dtype)])[1][0]
    return loss, by_hidden.astype(mx.float32)


def selector_loss(
    target: TreeTarget,
    drafter: DFlashDrafter,
    hidden: mx.array,
    previous: mx.array,
    labels: mx.array,
    weights: mx.array,
) -> mx.array:
    """Sum of weights * cross-entropy over the selector's candidates, each after the true token before it.

    hidden (R, D), previous, labels and weights (R,).  A label that is no candidate takes the worst one's
    place, as in the public trainers (SpecForge pull request 772).  The head's logits are taken as they are:
    what they should be is the block loss's affair, and so no second gradient passes the head.
    """
    selector = selector_of(drafter)
    if selector is None:
        return mx.array(0.0)
    rows = max(1, HEAD_CHUNK // target.vocab_size)
    total = mx.array(0.0)
    for start in range(0, len(hidden), rows):
        part = hidden[start : start + rows]
        label = labels[start : start + rows, None]
        logits = slot_logits(target, drafter, mx.stop_gradient(part))
        candidates = mx.argpartition(-logits, kth=selector.top_k - 1, axis=-1)[:, : selector.top_k].astype(mx.int32)
        worst = mx.take_along_axis(logits, candidates, axis=-1).argmin(axis=-1, keepdims=True)
        missing = mx.logical_not((candidates == label).any(axis=-1, keepdims=True))
        candidates = mx.where(missing & (mx.arange(selector.top_k) == worst), label, candidates)
        edges = selector.scores(previous[start : start + rows, None], part, candidates)[:, 0]
        scores = mx.stop_gradient(mx.take_along_axis(logits, candidates, axis=-1)) + edges
        right = mx.where(candidates == label, scores, 0.0).sum(axis=-1)
        total = total + ((mx.logsumexp(scores, axis=-1) - right) * weights[start : start + rows]).sum()
    return total


def shard_streams() -> list[mx.Stream]:
    """Streams that share a step's work: two on the CPU, whose element-wise passes use one thread each."""
    if mx.default_device() == mx.cpu:
        return [mx.new_stream(mx.cpu), mx.new_stream(mx.cpu)]
    return [mx.default_stream(mx.gpu)]


def shards(sequences: int, streams: Sequence[mx.Stream]) -> list[tuple[mx.Stream, slice]]:
    """Deal `sequences` rows out to the streams, in order; a stream without any is left out."""
    edges = [round(i * sequences / len(streams)) for i in range(len(streams) + 1)]
    parts = zip(streams, edges[:-1], edges[1:], strict=True)
    return [(stream, slice(first, last)) for stream, first, last in parts if first < last]


def batch_features(target: TreeTarget, batch: Batch, streams: Sequence[mx.Stream]) -> list[mx.array]:
    """The shards' features, evaluated: apart from the drafter's graph, the streams overlap fully."""
    features = []
    for stream, rows in shards(len(batch.lengths), streams):
        with mx.stream(stream):
            token_ids = mx.array(batch.token_ids[rows, : batch.lengths[rows].max()])
            features.append(target_features(target, token_ids))
    mx.eval(features)
    return features


def batch_loss(
    drafter: DFlashDrafter,
    target: TreeTarget,
    features: Sequence[mx.array],
    blocks: Blocks,
    streams: Sequence[mx.Stream],
) -> mx.array:
    """Scalar: the weighted mean cross-entropy of all blocks, and of a DFlash 2 drafter's selections.

    `features` come from batch_features.
    """
    sums = []
    for (stream, rows), part in zip(shards(len(blocks.anchors), streams), features, strict=True):
        with mx.stream(stream):
            embeddings = embed_blocks(target, blocks.token_ids[rows])
            context = context_keys_values(drafter, part)
            hidden = draft_hidden(drafter, embeddings, context, blocks.anchors[rows])[:, :, 1:]
            hidden = hidden.reshape(-1, hidden.shape[-1])
            labels = blocks.labels[rows].reshape(-1)
            weights = blocks.weights[rows].reshape(-1)
            previous = mx.concatenate([blocks.token_ids[rows][..., :1], blocks.labels[rows][..., :-1]], axis=-1)
            sums.append(head_loss(target, drafter, hidden, labels, weights))
            sums.append(selector_loss(target, drafter, hidden, previous.reshape(-1), labels, weights))
    return mx.stack(sums).sum() / mx.maximum(blocks.weights.sum(), 1e-9)


def loss_and_gradients(
    drafter: DFlashDrafter,
    target: TreeTarget,
    features: Sequence[mx.array],
    blocks: Blocks,
    streams: Sequence[mx.Stream],
) -> tuple[mx.array, dict[str, Any]]:
    """`batch_loss` and its gradient by the drafter's parameters, nested as they are."""
    compute = nn.value_and_grad(drafter, lambda model: batch_loss(model, target, features, blocks, streams))
    return compute(drafter)
