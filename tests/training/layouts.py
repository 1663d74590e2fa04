"""What is asked of every layout that is trained beside v1."""

import json

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlx_ddtree.training.examples import Example

from .test_loss import loss_and_gradients, make_batch


def off_neutral(drafter):
    """No weight stays at the value at which it changes nothing."""
    drafter.update(tree_map(lambda p: p + 0.3 * mx.random.normal(p.shape), drafter.parameters()))


def tossed(count=24, length=40):
    """A coin decides between 3 4 5 6 and 7 8 9 10 after every four tokens: only the token before says what follows."""
    tosses = np.random.default_rng(0).integers(0, 2, (count, length // 4))
    return [Example((), tuple(3 + 4 * int(toss) + i for toss in row for i in range(4))) for row in tosses]


def assert_gradient_reaches_every_parameter(target, drafter):
    streams = [mx.default_stream(mx.default_device())]
    _, gradients = loss_and_gradients(streams, target, drafter, make_batch())
    flat = dict(tree_flatten(gradients))
    assert flat.keys() == dict(tree_flatten(drafter.parameters())).keys()
    assert all(mx.abs(g).max().item() > 0 for g in flat.values())


def assert_the_loss_falls(trainer, folder):
    """Block loss, what the layout adds, and tau."""
    before = trainer.evaluate()
    summary = trainer.train(progress_bar=False)
    assert summary["validation_loss"] < 0.6 * before.loss
    assert summary["tau"] > 1.5 > before.tau
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()[:-1]]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
