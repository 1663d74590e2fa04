"""What training minimises: cross-entropy of all blocks' slots through the target's own head.

A part of it, `soft`, is against the target's own distribution at the slot, which says more than one token: half of each
was 0.06 to 0.19 nats better on held-out answers than labels alone.

Shapes: S sequences of n tokens, A anchors each, blocks of B = L + 1, hidden size D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import Batch
from mlx_ddtree.training.blocks import Blocks
from mlx_ddtree.training.features import FeatureStore
from mlx_ddtree.training.forward import context_keys_values, embed_blocks, slot_hidden, target_features
from mlx_ddtree.training.head_loss import Lesson, head_loss, selector_loss
from mlx_ddtree.training.vocabulary import HeadRows


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
        previous = np.array(self.blocks.previous[rows]).reshape(-1)
        slots = np.flatnonzero(weights > 0)
        teacher = None
        if states.hidden is not None and self.soft:
            length, width = states.hidden.shape[1:]
            anchors = np.array(self.blocks.anchors[rows])
            places = anchors[..., None] + np.arange(self.blocks.labels.shape[-1])
            places += np.arange(len(anchors))[:, None, None] * length
            teacher = states.hidden.reshape(-1, width)[mx.array(places.reshape(-1)[slots])]
        said = labels[slots] if self.rows is None else self.rows.index[labels[slots]]
        lesson = Lesson(
            mx.array(said), mx.array(weights[slots]), mx.array(previous[slots]), teacher, self.soft, self.rows
        )
        return mx.array(slots), lesson


def batch_loss(
    drafter: DFlashDrafter,
    target: TreeTarget,
    states: Sequence[States],
    step: Step,
    streams: Sequence[mx.Stream],
) -> mx.array:
    """Scalar: the weighted mean cross-entropy of all blocks, and of a DFlash 2 drafter's selections or a DSpark
    drafter's confidence.

    `states` come from batch_features or stored_features.
    """
    sums = []
    blocks = step.blocks
    for (stream, rows), part in zip(shards(len(blocks.anchors), streams), states, strict=True):
        with mx.stream(stream):
            own = blocks.rows(rows)
            context = context_keys_values(drafter, part.features)
            hidden = slot_hidden(drafter, embed_blocks(target, own.token_ids), context, own.anchors)
            hidden = hidden.reshape(-1, hidden.shape[-1])
            slots, lesson = step.lesson(rows, part)
            sums.append(head_loss(target, drafter, hidden[slots], lesson))
            if drafter.selector is not None:
                before, labels, weights = (x.reshape(-1) for x in (own.previous, own.labels, own.weights))
                sums.append(selector_loss(target, drafter, hidden, before, labels, weights))
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
