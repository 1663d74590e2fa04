"""What can fail is tried before the target answers for hours: the folder, the data, the drafter, one training step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.files.lock import try_lock
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.answers import Answering
from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.blocks import make_blocks, sample_anchors
from mlx_ddtree.training.checkpoint import check_same_settings, checkpoint_file, run_identity, stored_identity
from mlx_ddtree.training.evaluate import evaluate_drafter
from mlx_ddtree.training.examples import DataError, Example, usable_examples
from mlx_ddtree.training.loss import Step, batch_features, loss_and_gradients, shard_streams
from mlx_ddtree.training.saving import public_config
from mlx_ddtree.training.schedule import TrainingSettings


@contextmanager
def only_run_in(output: Path) -> Iterator[None]:
    """Make the folder of a run and keep it for this process: two runs would write over each other's checkpoints.

    Raises OptionError if the folder cannot be written or another process trains into it.
    """
    path = checkpoint_file(output).with_name("lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise OptionError(f"--output {output} cannot be written: {error.strerror}") from None
    with file:
        if not try_lock(file):
            raise OptionError(f"another process trains into {output}: wait for it, or give another --output")
        yield


def check_examples(examples: Sequence[Example], target: TreeTarget, how: Answering | None) -> None:
    """Whether at least two sequences can come of the data, of tokens that the target knows.

    how: how prompts will be answered; None where the files' own responses are learnt.

    Raises DataError.
    """
    for example in examples:
        largest = max(example.token_ids, default=0)
        if largest >= target.vocab_size:
            raise DataError(
                f"{example.source}: the tokenizer gives token {largest}, but the target's embedding has "
                f"{target.vocab_size} rows: the two do not belong together"
            )
    if how is None:
        count = len(usable_examples(examples))
    else:
        count = sum(len(example.token_ids) >= 2 for example in examples if not example.prompt_tokens)
        count += sum(how.fits(example.prompt_tokens) for example in examples if example.prompt_tokens)
    if count < 2:
        raise DataError(
            f"{count} of {len(examples)} sequences of the data can be trained on: at least two are needed, one of them "
            "to validate with; prompts must leave room for --max-tokens of an answer"
        )


def check_resumable(output: Path, config: DrafterConfig, settings: TrainingSettings) -> None:
    """Whether `output` has a checkpoint of a run with these options; the data are compared when they are there.

    Raises OptionError or WeightsError.
    """
    check_same_settings(stored_identity(output), run_identity(config, asdict(settings), ()))


def rehearse(drafter: DFlashDrafter, target: TreeTarget, examples: Sequence[Example]) -> None:
    """A gradient and an evaluation on two short sequences; the drafter's config written and read.

    No parameter changes, and the target's taps are what they were.

    Raises ConfigError if the drafter could not be saved, UnsupportedModelError if the target's model cannot be learnt.
    """
    DrafterConfig.from_dict(public_config(drafter.config))
    taps = target.taps
    target.taps = drafter.config.target_layer_ids or ()
    try:
        loss = _first_loss(drafter, target, _short_examples(examples, drafter.config.block_size + 2))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"no drafter can be trained for this target: a first step fails: {error}; please report it"
        ) from error
    finally:
        target.taps = taps
    if not math.isfinite(loss):
        raise UnsupportedModelError(
            f"no drafter can be trained for this target: the loss of a first step is {loss}; are the target's weights "
            "whole?"
        )


def _short_examples(examples: Sequence[Example], length: int) -> list[Example]:
    """Two sequences of `length` tokens that the data begin with, one of them backwards."""
    tokens: list[int] = []
    for example in examples[:length]:
        tokens += example.token_ids[:length]
    tokens = (tokens * length)[:length]
    return [Example((), tuple(tokens)), Example((), tuple(reversed(tokens)))]


def _first_loss(drafter: DFlashDrafter, target: TreeTarget, examples: Sequence[Example]) -> float:
    """A step's loss and an evaluation's, added, once all gradients are there."""
    config = drafter.config
    batch = make_batch(examples)
    anchors = sample_anchors(batch, 2, np.random.default_rng(0))
    blocks = make_blocks(batch, anchors, config, gamma=1.0)
    streams = shard_streams()
    features = batch_features(target, batch, streams)
    loss, gradients = loss_and_gradients(drafter, target, features, Step(blocks), streams)
    mx.eval(loss, gradients)
    evaluation = evaluate_drafter(drafter, target, examples, anchors=2, gamma=1.0)
    return float(np.array(loss)) + evaluation.loss
