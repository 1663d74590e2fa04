"""What training minimises: cross-entropy of all blocks' slots through the target's own head.

A part of it, `soft`, is against the target's own distribution at the slot, which says more than one token: half of each
was 0.06 to 0.19 nats better on held-out answers than labels alone.

Shapes: S sequences of n tokens, A anchors each, blocks of B = L + 1, hidden size D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_ddtree.drafter.dflash2 import selector_of
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import Batch
from mlx_ddtree.training.blocks import Blocks
from mlx_ddtree.training.features import FeatureStore
from mlx_ddtree.training.forward import context_keys_values, draft_hidden, embed_blocks, target_features
from mlx_ddtree.training.vocabulary import HeadRows

HEAD_CHUNK = 1 << 24
"""Logits held at a time; with a vocabulary of 150k all rows together would take gigabytes."""


def slot_logits(target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array) -> mx.array:
    """(..., D) -> float32 (..., V), with the target's own head, as drafting computes them."""
    return drafter.scale_logits(target.head(hidden).astype(mx.float32))


@dataclass(frozen=True)
class Lesson:
    """What slots should say, row by row.

    labels (R,) and weights (R,) of the cross-entropy.
    teacher: (R, D) the final hidden states by which the target chose the labels, or None without `soft`.
    soft: the share of the loss against the target's distribution.
    rows: the part of the head that is used; None is all of it.
    """

    labels: mx.array
    weights: mx.array
    teacher: mx.array | None = None
    soft: float = 0.0
    rows: HeadRows | None = None

    def part(self, start: int, stop: int) -> Lesson:
        """Rows start..stop."""
        teacher = None if self.teacher is None else self.teacher[start:stop]
        return replace(self, labels=self.labels[start:stop], weights=self.weights[start:stop], teacher=teacher)


def head_loss(target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, lesson: Lesson) -> mx.array:
    """Sum of weights * cross-entropy of rows (R, D) against the lesson's labels: a scalar.

    The head's rows times vocabulary outweigh all the drafter's work, so the gradient is found by
    hand with one softmax for the value and the gradient, instead of one each and several passes:
    d loss / d logits = w (softmax - one_hot(label)).  It enters the graph as hidden * gradient.
    With a soft part s, one_hot becomes (1 - s) one_hot + s * the target's softmax in the gradient; the value stays the
    cross-entropy against labels, so that values of different s can be compared.
    """
    chunk = max(1, HEAD_CHUNK // target.vocab_size)
    total = mx.array(0.0)
    for start in range(0, len(hidden), chunk):
        part = hidden[start : start + chunk]
        own = lesson.part(start, start + chunk)
        loss, gradient = _head_gradient(target, drafter, mx.stop_gradient(part), own)
        gradient = mx.stop_gradient(gradient * own.weights[:, None])
        linear = (part.astype(mx.float32) * gradient).sum()  # its value is taken out again
        total = total + mx.stop_gradient((loss * own.weights).sum() - linear) + linear
    return total


def _head_gradient(
    target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, lesson: Lesson
) -> tuple[mx.array, mx.array]:
    """Cross-entropy (R,) of every row and its gradient by `hidden`, (R, D) float32."""
    rows, soft = lesson.rows, lesson.soft
    head = target.head if rows is None else rows.logits
    bias = 0.0 if rows is None else rows.bias
    raw = head(hidden)
    probabilities = mx.softmax(drafter.scale_logits(raw.astype(mx.float32)) + bias, axis=-1)
    label = lesson.labels[:, None]
    chosen = mx.take_along_axis(probabilities, label, axis=-1)
    loss = -mx.log(mx.maximum(chosen[:, 0], 1e-37))
    if lesson.teacher is None or soft == 0:
        by_logits = mx.put_along_axis(probabilities, label, chosen - 1.0, axis=-1)
    else:
        taught = head(lesson.teacher).astype(mx.float32)
        cap = target.logit_softcap
        taught = taught if cap is None else mx.tanh(taught / cap) * cap
        by_logits = probabilities - soft * mx.softmax(taught + bias, axis=-1)
        there = mx.take_along_axis(by_logits, label, axis=-1)
        by_logits = mx.put_along_axis(by_logits, label, there - (1.0 - soft), axis=-1)
    if drafter.config.logit_scale != 1.0 or drafter.config.logit_softcap is not None:
        by_logits = mx.vjp(drafter.scale_logits, [raw.astype(mx.float32)], [by_logits])[1][0]
    if rows is not None:
        return loss, by_logits @ rows.matrix
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


@dataclass(frozen=True)
class States:
    """What the target computed over a stream's share of a batch: features (S, n, F), final hidden (S, n, D) or None."""

    features: mx.array
    hidden: mx.array | None = None


def batch_features(target: TreeTarget, batch: Batch, streams: Sequence[mx.Stream]) -> list[States]:
    """The shards' features, evaluated: apart from the drafter's graph, the streams overlap fully."""
    states = []
    for stream, rows in shards(len(batch.lengths), streams):
        with mx.stream(stream):
            token_ids = mx.array(batch.token_ids[rows, : batch.lengths[rows].max()])
            states.append(States(target_features(target, token_ids)))
    mx.eval([state.features for state in states])
    return states


def stored_features(
    store: FeatureStore, places: Sequence[int], batch: Batch, streams: Sequence[mx.Stream]
) -> list[States]:
    """The shards' states of the store's sequences `places`, of which `batch` is made."""
    states = []
    for _, rows in shards(len(places), streams):
        features, hidden = store.batch(places[rows], batch.rows(rows))
        states.append(States(features, hidden))
    return states


@dataclass(frozen=True)
class Step:
    """What a step's loss needs besides the states: blocks, the head's rows (None: all), and the soft part."""

    blocks: Blocks
    rows: HeadRows | None = None
    soft: float = 0.0

    def lesson(self, rows: slice, states: States) -> tuple[mx.array, Lesson]:
        """Which slots (of a shard's S * A * L) count, and what they should say: slots of weight 0 cost nothing."""
        weights = np.array(self.blocks.weights[rows]).reshape(-1)
        labels = np.array(self.blocks.labels[rows]).reshape(-1)
        slots = np.flatnonzero(weights > 0)
        teacher = None
        if states.hidden is not None and self.soft:
            length, width = states.hidden.shape[1:]
            anchors = np.array(self.blocks.anchors[rows])
            places = anchors[..., None] + np.arange(self.blocks.labels.shape[-1])
            places += np.arange(len(anchors))[:, None, None] * length
            teacher = states.hidden.reshape(-1, width)[mx.array(places.reshape(-1)[slots])]
        said = labels[slots] if self.rows is None else self.rows.index[labels[slots]]
        lesson = Lesson(mx.array(said), mx.array(weights[slots]), teacher, self.soft, self.rows)
        return mx.array(slots), lesson


def batch_loss(
    drafter: DFlashDrafter,
    target: TreeTarget,
    states: Sequence[States],
    step: Step,
    streams: Sequence[mx.Stream],
) -> mx.array:
    """Scalar: the weighted mean cross-entropy of all blocks, and of a DFlash 2 drafter's selections.

    `states` come from batch_features or stored_features.
    """
    sums = []
    blocks = step.blocks
    for (stream, rows), part in zip(shards(len(blocks.anchors), streams), states, strict=True):
        with mx.stream(stream):
            embeddings = embed_blocks(target, blocks.token_ids[rows])
            context = context_keys_values(drafter, part.features)
            hidden = draft_hidden(drafter, embeddings, context, blocks.anchors[rows])[:, :, 1:]
            hidden = hidden.reshape(-1, hidden.shape[-1])
            slots, lesson = step.lesson(rows, part)
            sums.append(head_loss(target, drafter, hidden[slots], lesson))
            if selector_of(drafter) is not None:
                labels = blocks.labels[rows].reshape(-1)
                weights = blocks.weights[rows].reshape(-1)
                previous = mx.concatenate([blocks.token_ids[rows][..., :1], blocks.labels[rows][..., :-1]], axis=-1)
                sums.append(selector_loss(target, drafter, hidden, previous.reshape(-1), labels, weights))
    return mx.stack(sums).sum() / mx.maximum(blocks.weights.sum(), 1e-9)


def loss_and_gradients(
    drafter: DFlashDrafter,
    target: TreeTarget,
    states: Sequence[States],
    step: Step,
    streams: Sequence[mx.Stream],
) -> tuple[mx.array, dict[str, Any]]:
    """`batch_loss` and its gradient by the drafter's parameters, nested as they are."""
    compute = nn.value_and_grad(drafter, lambda model: batch_loss(model, target, states, step, streams))
    return compute(drafter)
