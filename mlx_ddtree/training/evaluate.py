"""How good a drafter is on held-out sequences: loss, accuracy by slot, and tau.

tau is measured on the chain as decoding runs it, round after round, not at random anchors: a
chain stops at the hard places more often, so random anchors would flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.path_heads import MarkovHead
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import Batch, make_batch
from mlx_ddtree.training.blocks import Blocks, make_blocks, sample_anchors
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.forward import KeysValues, context_keys_values, embed_blocks, slot_hidden, target_features
from mlx_ddtree.training.head_loss import markov_of, slot_logits


@dataclass(frozen=True)
class Evaluation:
    """What held-out sequences say of a drafter.

    loss: weighted as in training.  accuracy: share of right tokens by slot 1..L.
    tau: mean tokens emitted per round of a chain draft.
    """

    loss: float
    accuracy: tuple[float, ...]
    tau: float


def evaluate_drafter(
    drafter: DFlashDrafter,
    target: TreeTarget,
    examples: Sequence[Example],
    *,
    anchors: int,
    gamma: float,
    batch_size: int = 8,
    features_of: Callable[[Batch], mx.array] | None = None,
) -> Evaluation:
    """Always the same anchors, so that evaluations can be compared.

    tau counts greedy responses only, where there are any: a draft is greedy, and so is its measure.
    features_of: gives a batch's features (S, n, taps * D); the target's own as they are, unless given.
    """
    if features_of is None:
        features_of = partial(_plain_features, target)
    config = drafter.config
    slot_count = config.block_size - 1
    losses = np.zeros(slot_count, np.float32)
    hits = np.zeros(slot_count, np.float32)
    counted = np.zeros(slot_count, np.float32)
    emitted = 0
    rounds = 0
    any_greedy = any(example.greedy for example in examples)
    rng = np.random.default_rng(0)
    for start in range(0, len(examples), batch_size):
        # 1. What the drafter sees of a batch.
        part = examples[start : start + batch_size]
        batch = make_batch(part)
        context = context_keys_values(drafter, features_of(batch))
        mx.eval(context)

        # 2. Loss and accuracy at random anchors.
        picked = sample_anchors(batch, anchors, rng)
        blocks = make_blocks(batch, picked, config, gamma)
        batch_losses, batch_hits, batch_counted = _slot_scores(drafter, target, context, blocks)
        losses += batch_losses
        hits += batch_hits
        counted += batch_counted

        # 3. Rounds as decoding makes them.
        chain = np.array([example.greedy or not any_greedy for example in part])
        new_tokens, new_rounds = chain_rounds(drafter, target, batch, context, chain)
        emitted += new_tokens
        rounds += new_rounds
    weights = np.exp(-np.arange(slot_count) / gamma)
    loss = float((losses * weights).sum() / (counted * weights).sum())
    accuracy = tuple(float(share) for share in hits / np.maximum(counted, 1))
    return Evaluation(loss, accuracy, emitted / max(rounds, 1))


def _plain_features(target: TreeTarget, batch: Batch) -> mx.array:
    return target_features(target, mx.array(batch.token_ids))


def _slot_scores(
    drafter: DFlashDrafter, target: TreeTarget, context: Sequence[KeysValues], blocks: Blocks
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """By slot (L,): summed cross-entropy, right tokens, and tokens counted, all after the true tokens before."""
    hidden = slot_hidden(drafter, embed_blocks(target, blocks.token_ids), context, blocks.anchors)
    losses: list[mx.array] = []
    right: list[mx.array] = []
    for row, labels, before in zip(hidden, blocks.labels, blocks.previous, strict=True):  # one by one: logits are large
        logits = slot_logits(target, drafter, row, before)
        chosen = mx.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        losses.append(mx.logsumexp(logits, axis=-1) - chosen)
        right.append(logits.argmax(axis=-1) == labels)
        mx.eval(losses[-1], right[-1])
    inside = blocks.weights > 0
    sums = [(mx.stack(x) * inside).sum(axis=(0, 1)) for x in (losses, right)]
    return np.array(sums[0]), np.array(sums[1]).astype(np.float32), np.array(inside.sum(axis=(0, 1)), np.float32)


def chain_rounds(
    drafter: DFlashDrafter,
    target: TreeTarget,
    batch: Batch,
    context: Sequence[KeysValues],
    which: NDArray[np.bool_],
) -> tuple[int, int]:
    """(tokens emitted, rounds) of real rounds through the stored responses of the sequences `which`.

    A round drafts greedily at the root, accepts the tokens that agree with the response, and goes
    on behind the bonus token, all sequences side by side.
    """
    roots = batch.starts.copy()
    last = batch.lengths - 1
    rounds = 0
    emitted = int((last - roots)[which].sum())
    while (running := which & (roots < last)).any():
        rows = mx.array(np.flatnonzero(running))
        anchors = roots[running][:, None]
        part = Batch(batch.token_ids[running], batch.lengths[running], batch.starts[running])
        blocks = make_blocks(part, anchors, drafter.config, gamma=1.0)
        kept = [(keys[rows], values[rows]) for keys, values in context]
        hidden = slot_hidden(drafter, embed_blocks(target, blocks.token_ids), kept, blocks.anchors)[:, 0]
        drafted = greedy_drafts(target, drafter, hidden, blocks.token_ids[:, 0, 0])
        agrees = (drafted == blocks.labels[:, 0]) & (blocks.weights[:, 0] > 0)
        accepted = np.array(mx.cumprod(agrees.astype(mx.int32), axis=-1).sum(axis=-1))
        roots[running] += accepted + 1
        rounds += int(running.sum())
    return emitted, rounds


def greedy_drafts(target: TreeTarget, drafter: DFlashDrafter, hidden: mx.array, roots: mx.array) -> mx.array:
    """hidden (N, L, D) of blocks after roots (N,) -> the drafter's own best path of each, (N, L)."""
    logits = slot_logits(target, drafter, hidden)
    if (markov := markov_of(drafter)) is not None:
        return _markov_walk(markov, logits, roots)
    selector = drafter.selector
    if selector is None:
        return logits.argmax(axis=-1)
    candidates = mx.argpartition(-logits, kth=selector.top_k - 1, axis=-1)[..., : selector.top_k]
    unary = mx.take_along_axis(logits, candidates, axis=-1)
    scores = unary[..., None, :] + selector.edges(roots, hidden, candidates)
    rank = mx.zeros((len(roots), 1), mx.uint32)
    path = []
    for depth in range(hidden.shape[1]):
        rank = mx.take_along_axis(scores[:, depth], rank[..., None], axis=1)[:, 0].argmax(axis=-1, keepdims=True)
        path.append(mx.take_along_axis(candidates[:, depth], rank, axis=-1))
    return mx.concatenate(path, axis=-1)


def _markov_walk(markov: MarkovHead, logits: mx.array, roots: mx.array) -> mx.array:
    """The best token after the best token, by logits (N, L, V) and the head's corrections: (N, L)."""
    path = [roots]
    for depth in range(logits.shape[1]):
        corrected = logits[:, depth] + markov.bias(markov.markov_w1(path[-1]))
        path.append(corrected.argmax(axis=-1).astype(roots.dtype))
    return mx.stack(path[1:], axis=-1)
