"""The seconds of a training step, measured on stand-ins before the target has answered anything."""

from __future__ import annotations

import time
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.blocks import default_gamma, make_blocks, sample_anchors, thin_out
from mlx_ddtree.training.examples import MAX_LENGTH, Example
from mlx_ddtree.training.forecast import StepPace
from mlx_ddtree.training.loss import States, Step, loss_and_gradients, shard_streams, shards
from mlx_ddtree.training.optimizer import make_optimizer
from mlx_ddtree.training.schedule import TrainingSettings
from mlx_ddtree.training.vocabulary import FREQUENT, Vocabulary

STAND_INS = 2
"""Sequences that are timed, one for each stream of the CPU; a batch takes as many times as long as it has pairs."""
ROUNDS = 3
MOST_SECONDS = 2.0
"""A round that begins later is left out."""


def measure_step(
    drafter: DFlashDrafter,
    target: TreeTarget,
    examples: Sequence[Example],
    settings: TrainingSettings,
    answer_tokens: int,
) -> StepPace:
    """Time gradients and an update whose results are thrown away: drafter and taps are left as they are.

    answer_tokens: of an answer that is still missing.
    """
    sequences = min(STAND_INS, settings.batch_size)
    taps = target.taps
    target.taps = drafter.config.target_layer_ids or ()
    try:
        timing = _Timing(drafter, target, _stand_ins(examples, sequences, answer_tokens), settings)
        began = time.monotonic()
        states = [timing.states()]
        gradients = []
        updates = []
        for _ in range(ROUNDS):
            gradients.append(timing.gradients())
            updates.append(timing.update())
            if time.monotonic() - began > MOST_SECONDS:
                break
            states.append(timing.states())
    finally:
        target.taps = taps
    times = min(settings.batch_size, len(examples)) / sequences
    return StepPace(step=times * min(gradients) + min(updates), states=times * min(states))


class _Timing:
    """A step in its parts; each returns its seconds."""

    def __init__(
        self, drafter: DFlashDrafter, target: TreeTarget, examples: Sequence[Example], settings: TrainingSettings
    ) -> None:
        config = drafter.config
        rng = np.random.default_rng(0)
        self.drafter = drafter
        self.target = target
        self.streams = shard_streams()
        self.batch = make_batch(examples)
        gamma = settings.gamma or default_gamma(config.block_size)
        anchors = sample_anchors(self.batch, settings.anchors, rng)
        blocks = thin_out(make_blocks(self.batch, anchors, config, gamma), rng)
        common = Vocabulary(target, [Example((), tuple(range(FREQUENT + 1)))])
        self.step = Step(blocks, common.rows(np.array(blocks.labels), rng), settings.soft)
        self.optimizer = make_optimizer(settings.optimizer, settings.lr, settings.weight_decay)
        self.optimizer.init(drafter.trainable_parameters())

    def states(self) -> float:
        began = time.monotonic()
        hidden, features = self.target.forward(mx.array(self.batch.token_ids), self.target.make_cache())
        assert features is not None, "the target's taps are set"
        features, hidden = features.astype(mx.float32), hidden.astype(mx.float32)
        mx.eval(features, hidden)
        parts = shards(len(self.batch.lengths), self.streams)
        self.stored = [States(features[rows], hidden[rows]) for _, rows in parts]
        return time.monotonic() - began

    def gradients(self) -> float:
        began = time.monotonic()
        loss, self.gradient = loss_and_gradients(self.drafter, self.target, self.stored, self.step, self.streams)
        mx.eval(loss, self.gradient)
        return time.monotonic() - began

    def update(self) -> float:
        began = time.monotonic()
        updated = self.optimizer.apply_gradients(self.gradient, self.drafter.trainable_parameters())
        mx.eval(updated, self.optimizer.state)
        return time.monotonic() - began


def _stand_ins(examples: Sequence[Example], count: int, answer_tokens: int) -> list[Example]:
    """Sequences of the length that the examples will have on average, of tokens that the data begin with."""
    tokens: list[int] = []
    lengths = []
    for example in examples:
        lengths.append(len(example.prompt_tokens) + (len(example.response_tokens or ()) or answer_tokens))
        if len(tokens) < MAX_LENGTH:
            tokens += example.token_ids
    length = min(MAX_LENGTH, max(2, round(float(np.mean(lengths)))))
    repeated = (tokens * length)[:length]
    return [Example((), tuple(repeated))] * count
