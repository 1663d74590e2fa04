"""The head's part of the loss: cross-entropy of slots through the target's own head, and what pairs of tokens add.

The head's rows times vocabulary outweigh all the drafter's work, so its gradient is found by hand, with one softmax for
value and gradient, instead of one each and several passes: d loss / d logits = w (softmax - one_hot(label)).  It enters
the graph as the sum of what made the logits times its gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import mlx.core as mx

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.path_heads import MarkovHead
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.vocabulary import HeadRows

HEAD_CHUNK = 1 << 24
"""Logits held at a time; with a vocabulary of 150k all rows together would take gigabytes."""


def slot_logits(
    target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, previous: mx.array | None = None
) -> mx.array:
    """(..., D) -> float32 (..., V), with the target's own head, as drafting computes them.

    previous: (...) the token before each, which a Markov head corrects by; None leaves its part out.
    """
    logits = drafter.scale_logits(target.head(hidden).astype(mx.float32))
    markov = markov_of(drafter)
    if markov is None or previous is None:
        return logits
    return logits + markov.bias(markov.markov_w1(previous)).astype(mx.float32)


def markov_of(drafter: DFlashDrafter) -> MarkovHead | None:
    """The head by which a DSpark drafter scores a token after the one before it, vanilla where it is trained."""
    return drafter.markov_head if drafter.config.markov is not None else None


@dataclass(frozen=True)
class Lesson:
    """What slots should say, row by row.

    labels (R,) and weights (R,) of the cross-entropy; labels are rows of the head where it is used in part.
    previous: (R,) the true tokens before the labels.
    teacher: (R, D) the final hidden states by which the target chose the labels, or None without `soft`.
    soft: the share of the loss against the target's distribution.
    rows: the part of the head that is used; None is all of it.
    """

    labels: mx.array
    weights: mx.array
    previous: mx.array
    teacher: mx.array | None = None
    soft: float = 0.0
    rows: HeadRows | None = None

    def part(self, start: int, stop: int) -> Lesson:
        """Rows start..stop."""
        teacher = None if self.teacher is None else self.teacher[start:stop]
        return replace(
            self,
            labels=self.labels[start:stop],
            weights=self.weights[start:stop],
            previous=self.previous[start:stop],
            teacher=teacher,
        )


class Pairs(NamedTuple):
    """A Markov head's factors: of the tokens before, (R, r), and of the tokens that can be said, (V, r)."""

    before: mx.array
    said: mx.array


class Taught(NamedTuple):
    """What one chunk's softmax gives: loss and accepted (R,), and gradients of the sum of weights * loss.

    accepted: the chance that a draw of the target is the drafter's, 1 - the distance of their distributions.
    """

    loss: mx.array
    accepted: mx.array
    by_hidden: mx.array
    by_pairs: Pairs | None


def head_loss(target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, lesson: Lesson) -> mx.array:
    """Sum of weights * cross-entropy of rows (R, D) against the lesson's labels: a scalar.

    With a soft part s, one_hot becomes (1 - s) one_hot + s * the target's softmax in the gradient; the value stays the
    cross-entropy against labels, so that values of different s can be compared.  A Markov head's correction is part of
    the logits.  A confidence head learns what share is accepted; its own cross-entropy is added.
    """
    chunk = max(1, HEAD_CHUNK // target.vocab_size)
    total = mx.array(0.0)
    for start in range(0, len(hidden), chunk):
        part = hidden[start : start + chunk].astype(mx.float32)
        own = lesson.part(start, start + chunk)
        pairs = _pairs(drafter, own)
        taught = _teach(target, drafter, mx.stop_gradient(hidden[start : start + chunk]), pairs, own)
        linear = (part * mx.stop_gradient(taught.by_hidden)).sum()  # its value is taken out again
        if pairs is not None and taught.by_pairs is not None:
            for factor, gradient in zip(pairs, taught.by_pairs, strict=True):
                linear = linear + (factor * mx.stop_gradient(gradient)).sum()
        total = total + mx.stop_gradient((taught.loss * own.weights).sum() - linear) + linear
        if drafter.config.confidence is not None:
            total = total + _confidence_loss(drafter, part, pairs, taught.accepted, own.weights)
    return total


def _pairs(drafter: DFlashDrafter, lesson: Lesson) -> Pairs | None:
    markov = markov_of(drafter)
    if markov is None:
        return None
    said = markov.markov_w2.weight
    if lesson.rows is not None:
        said = said[lesson.rows.tokens]
    return Pairs(markov.markov_w1(lesson.previous), said)


def _teach(target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, pairs: Pairs | None, lesson: Lesson) -> Taught:
    """Rows (R, D) through the head, and back."""
    rows, label = lesson.rows, lesson.labels[:, None]
    head = target.head if rows is None else rows.logits
    bias = 0.0 if rows is None else rows.bias
    # 1. What the drafter says, what the target says, and how far they agree.
    raw = head(hidden)
    logits = drafter.scale_logits(raw.astype(mx.float32)) + bias
    if pairs is not None:
        logits = logits + pairs.before @ pairs.said.T
    probabilities = mx.softmax(logits, axis=-1)
    chosen = mx.take_along_axis(probabilities, label, axis=-1)
    loss = -mx.log(mx.maximum(chosen[:, 0], 1e-37))
    accepted = chosen[:, 0]
    # 2. The gradient by logits.
    if lesson.teacher is None or lesson.soft == 0:
        by_logits = mx.put_along_axis(probabilities, label, chosen - 1.0, axis=-1)
    else:
        taught = mx.softmax(target.bounded(head(lesson.teacher).astype(mx.float32)) + bias, axis=-1)
        accepted = mx.minimum(probabilities, taught).sum(axis=-1)
        by_logits = probabilities - lesson.soft * taught
        there = mx.take_along_axis(by_logits, label, axis=-1)
        by_logits = mx.put_along_axis(by_logits, label, there - (1.0 - lesson.soft), axis=-1)
    # 3. The gradients by what made the logits, weighted where they are narrow.
    weights = lesson.weights[:, None]
    by_pairs = None
    if pairs is not None:
        by_pairs = Pairs((by_logits @ pairs.said) * weights, by_logits.T @ (pairs.before * weights))
    if drafter.config.logit_scale != 1.0 or drafter.config.logit_softcap is not None:
        by_logits = mx.vjp(drafter.scale_logits, [raw.astype(mx.float32)], [by_logits])[1][0]
    if rows is not None:
        by_hidden = by_logits @ rows.matrix
    else:
        by_hidden = mx.vjp(target.head, [hidden], [by_logits.astype(raw.dtype)])[1][0].astype(mx.float32)
    return Taught(loss, accepted, by_hidden * weights, by_pairs)


def _confidence_loss(
    drafter: DFlashDrafter, hidden: mx.array, pairs: Pairs | None, accepted: mx.array, weights: mx.array
) -> mx.array:
    """Cross-entropy of the confidence head against the share that is accepted.

    It reads the drafter as it is, and so takes nothing from what the drafter learns for its drafts.
    """
    shape = drafter.config.confidence
    assert shape is not None
    seen = hidden
    if shape.with_markov and pairs is not None:
        seen = mx.concatenate([hidden, pairs.before], axis=-1)
    says = drafter.confidence_head(mx.stop_gradient(seen))
    return ((mx.logaddexp(says, mx.array(0.0)) - mx.stop_gradient(accepted) * says) * weights).sum()


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
    selector = drafter.selector
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
