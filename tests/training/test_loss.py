"""The training forward is what drafting computes, and its gradient is the loss's."""

import math
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.training.batches import Batch
from mlx_ddtree.training.blocks import default_gamma, make_blocks, sample_anchors
from mlx_ddtree.training.forward import context_keys_values, draft_hidden, embed_blocks, target_features
from mlx_ddtree.training.head_loss import Lesson, head_loss, slot_logits
from mlx_ddtree.training.loss import Step, batch_features, batch_loss, shard_streams
from mlx_ddtree.training.setup import default_config, new_drafter

from .tiny import MASK, VOCAB, make_target

BLOCK = 4


def make_pair(windows=(None, None), causal=(False, False), **changes):
    target = make_target()
    config = default_config(target, MASK, layers=2, taps=2, block_size=BLOCK)
    drafter = new_drafter(replace(config, windows=windows, causal=causal, **changes), target, seed=1)
    target.taps = drafter.config.target_layer_ids
    return target, drafter


def make_batch(lengths=(21, 16), starts=(3, 0)):
    tokens = np.random.default_rng(0).integers(2, VOCAB, (len(lengths), max(lengths)))
    return Batch(tokens.astype(np.int32), np.array(lengths, np.int32), np.array(starts, np.int32))


@pytest.mark.parametrize(
    ("windows", "causal"),
    [
        ((None, None), (False, False)),
        ((None, None), (True, True)),
        ((6, None), (True, False)),
        ((6, 3), (False, False)),
        ((2, 5), (True, True)),
    ],
)
def test_hidden_states_equal_drafting(windows, causal):
    target, drafter = make_pair(windows, causal)
    batch = make_batch()
    anchors = np.array([[4, 9, 19], [0, 5, 14]], np.int32)
    blocks = make_blocks(batch, anchors, drafter.config, 4.0)
    features = target_features(target, mx.array(batch.token_ids))
    embeddings = embed_blocks(target, blocks.token_ids)
    ours = draft_hidden(drafter, embeddings, context_keys_values(drafter, features), blocks.anchors)
    for s, a in np.ndindex(anchors.shape):
        cache, known = drafter.make_cache(), features[s : s + 1, : anchors[s, a]]
        half = known.shape[1] // 2
        if half:
            drafter.extend(known[:, :half], cache)
        drafted = drafter(embeddings[s, a][None], known[:, half:], cache)
        np.testing.assert_allclose(np.array(ours[s, a]), np.array(drafted[0]), atol=2e-5)


def test_blocks_hold_the_next_tokens():
    batch = make_batch()
    _, drafter = make_pair()
    blocks = make_blocks(batch, np.array([[4, 19], [0, 13]], np.int32), drafter.config, gamma=2.0)
    tokens = batch.token_ids
    assert blocks.token_ids[0, 0].tolist() == [tokens[0, 4], MASK, MASK, MASK]
    assert blocks.labels[0, 0].tolist() == tokens[0, 5:8].tolist()
    np.testing.assert_allclose(blocks.weights[0, 0], [1, math.exp(-0.5), math.exp(-1)], rtol=1e-6)
    assert (blocks.weights[0, 1] > 0).tolist() == [True, False, False]  # one token follows position 19 of 21
    assert (blocks.weights[1, 1] > 0).tolist() == [True, True, False]  # the padding behind 16 tokens counts for nothing


def test_anchors_lie_between_the_prompts_last_token_and_the_last_but_one():
    batch = make_batch()
    anchors = sample_anchors(batch, 200, np.random.default_rng(0))
    assert (anchors.min(axis=1) == batch.starts).all()
    assert (anchors.max(axis=1) == batch.lengths - 2).all()
    few = sample_anchors(batch, 8, np.random.default_rng(0))
    assert all(len(set(row)) == 8 for row in few.tolist())


def test_gamma_is_the_published_one():
    assert [default_gamma(b) for b in (16, 10, 8)] == [7, 5, 4]
    assert 5 < default_gamma(12) < 7


@pytest.mark.parametrize("changes", [{}, {"logit_scale": 0.5, "logit_softcap": 5.0}])
def test_head_loss_is_cross_entropy_with_its_gradient(changes, monkeypatch):
    monkeypatch.setattr("mlx_ddtree.training.head_loss.HEAD_CHUNK", 5 * VOCAB)  # several chunks, the last one short
    target, drafter = make_pair(**changes)
    mx.random.seed(0)
    hidden, labels = 3 * mx.random.normal((13, 32)), mx.random.randint(0, VOCAB, (13,))
    weights = mx.random.uniform(shape=(13,))

    def plain(hidden):
        return (nn.losses.cross_entropy(slot_logits(target, drafter, hidden), labels) * weights).sum()

    expected, expected_gradient = mx.value_and_grad(plain)(hidden)
    loss, gradient = mx.value_and_grad(lambda h: head_loss(target, drafter, h, Lesson(labels, weights, labels)))(hidden)
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-5)
    np.testing.assert_allclose(np.array(gradient), np.array(expected_gradient), atol=1e-5)


def test_a_quantised_target_has_the_same_gradient_rule():
    target, drafter = make_pair()
    nn.quantize(target.model, group_size=32, bits=8)
    hidden, labels, weights = mx.random.normal((5, 32)), mx.array([1, 2, 3, 4, 5]), mx.ones(5)

    def plain(hidden):
        return (nn.losses.cross_entropy(slot_logits(target, drafter, hidden), labels) * weights).sum()

    gradient = mx.grad(lambda h: head_loss(target, drafter, h, Lesson(labels, weights, labels)))(hidden)
    np.testing.assert_allclose(np.array(gradient), np.array(mx.grad(plain)(hidden)), atol=1e-4)


def loss_and_gradients(streams, target, drafter, batch):
    anchors = sample_anchors(batch, 5, np.random.default_rng(0))
    blocks = make_blocks(batch, anchors, drafter.config, 4.0)
    features = batch_features(target, batch, streams)
    return nn.value_and_grad(drafter, lambda d: batch_loss(d, target, features, Step(blocks), streams))(drafter)


def test_gradient_reaches_every_drafter_parameter_and_no_target_parameter():
    target, drafter = make_pair()
    before = [np.array(v) for _, v in tree_flatten(target.model.parameters())]
    loss, gradients = loss_and_gradients(shard_streams(), target, drafter, make_batch())
    assert 2 < loss.item() < 20
    flat = dict(tree_flatten(gradients))
    assert flat.keys() == dict(tree_flatten(drafter.parameters())).keys()
    assert all(mx.abs(g).max().item() > 0 for g in flat.values())
    after = [np.array(v) for _, v in tree_flatten(target.model.parameters())]
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_the_number_of_streams_does_not_change_the_loss():
    target, drafter = make_pair()
    batch = make_batch((21, 16, 9), (3, 0, 2))
    one, ours = ([mx.default_stream(mx.default_device())], shard_streams())
    loss, gradients = loss_and_gradients(one, target, drafter, batch)
    loss2, gradients2 = loss_and_gradients(ours, target, drafter, batch)
    np.testing.assert_allclose(loss.item(), loss2.item(), rtol=1e-5)
    for (_, a), (_, b) in zip(tree_flatten(gradients), tree_flatten(gradients2), strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-5)
