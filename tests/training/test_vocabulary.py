"""Part of a head: its loss is the whole head's in expectation, and its gradient that of the mixed targets."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_ddtree.training import vocabulary
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.head_loss import Lesson, head_loss, slot_logits
from mlx_ddtree.training.vocabulary import Vocabulary

from .test_loss import make_pair
from .tiny import VOCAB

EXAMPLES = [Example((), tuple(3 + i % 5 for i in range(40)))]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(vocabulary, "FREQUENT", 5)
    monkeypatch.setattr(vocabulary, "SAMPLED", 20)


def test_a_small_vocabulary_is_used_whole():
    target, _ = make_pair()
    assert Vocabulary(target, EXAMPLES).rows(np.array([1]), np.random.default_rng(0)) is None


@pytest.mark.parametrize("quantised", [False, True])
def test_rows_hold_frequent_tokens_and_labels_and_give_the_heads_logits(small_parts, quantised):
    target, _ = make_pair()
    if quantised:
        nn.quantize(target.model, group_size=32, bits=8)
    rows = Vocabulary(target, EXAMPLES).rows(np.array([40, 50]), np.random.default_rng(0))
    tokens = np.flatnonzero(rows.index >= 0)
    assert {3, 4, 5, 6, 7, 40, 50} <= set(tokens.tolist())
    assert len(tokens) < VOCAB
    hidden = mx.random.normal((4, 32))
    part, whole = np.array(rows.logits(hidden)), np.array(target.head(hidden))
    np.testing.assert_allclose(part[:, rows.index[tokens]], whole[:, tokens], atol=1e-4)


def test_the_sampled_tail_stands_for_the_rest(small_parts):
    target, drafter = make_pair()
    words = Vocabulary(target, EXAMPLES)
    hidden, labels = mx.random.normal((8, 32), key=mx.random.key(1)), mx.array([3, 4, 5, 6, 7, 3, 4, 5])
    weights = mx.ones(8)
    whole = head_loss(target, drafter, hidden, Lesson(labels, weights, labels)).item()
    sampled = []
    for seed in range(60):
        rows = words.rows(np.array(labels), np.random.default_rng(seed))
        lesson = Lesson(mx.array(rows.index[np.array(labels)]), weights, labels, rows=rows)
        sampled.append(head_loss(target, drafter, hidden, lesson).item())
    assert abs(np.mean(sampled) - whole) < 0.05 * whole


def test_the_soft_part_has_the_gradient_of_a_mixed_cross_entropy():
    target, drafter = make_pair()
    hidden, teacher = mx.random.normal((5, 32)), mx.random.normal((5, 32))
    labels, weights = mx.array([1, 2, 3, 4, 5]), mx.ones(5)
    wanted = mx.softmax(target.unembed(teacher), axis=-1)

    def plain(hidden):
        logits = slot_logits(target, drafter, hidden)
        hard = nn.losses.cross_entropy(logits, labels)
        soft = nn.losses.cross_entropy(logits, wanted)
        return (0.7 * hard + 0.3 * soft).sum()

    lesson = Lesson(labels, weights, labels, teacher, soft=0.3)
    gradient = mx.grad(lambda h: head_loss(target, drafter, h, lesson))(hidden)
    np.testing.assert_allclose(np.array(gradient), np.array(mx.grad(plain)(hidden)), atol=1e-5)
