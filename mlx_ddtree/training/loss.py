"""The training forward of a DFlash drafter: many blocks of many sequences at once.

A block starts at an anchor a (a clean token, as the bonus token is in decoding) and goes on with
MASKs; its slots k = 1..L learn the tokens a + k.  Each block sees the features of the positions
before its anchor and itself, nothing of other blocks: what a draft at that place would see
(arXiv 2602.06036).  Scores against the context and inside the block are computed apart and
joined in one softmax, so the cost is linear in the number of blocks.

Shapes: S sequences of n tokens, A anchors each, blocks of B = L + 1, hidden size D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.drafter.dflash2 import selector_of
from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.batches import Batch

KeysValues = tuple[mx.array, mx.array]
HEAD_CHUNK = 1 << 24
"""Logits held at a time; with a vocabulary of 150k all rows together would take gigabytes."""


@dataclass(frozen=True)
class Blocks:
    """What the drafter sees and should say.

    anchors: (S, A) int32.  token_ids: (S, A, B) int32, [clean token, MASK, ...].
    labels: (S, A, L) int32.  weights: (S, A, L) float32, 0 past the sequence's end.
    """

    anchors: mx.array
    token_ids: mx.array
    labels: mx.array
    weights: mx.array


def default_gamma(block_size: int) -> float:
    """Decay of the slots' weights: 4, 5, 7 for blocks of 8, 10, 16 as published, straight lines between."""
    return float(np.interp(block_size, [2, 8, 10, 16, 32], [1.0, 4.0, 5.0, 7.0, 12.0]))


def sample_anchors(batch: Batch, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """(S, count) random positions from the prompt's last token to the last but one; distinct if there are enough."""
    rows = []
    for start, length in zip(batch.starts, batch.lengths, strict=True):
        places = np.arange(start, length - 1)
        rows.append(np.sort(rng.choice(places, count, replace=len(places) < count)))
    return np.stack(rows).astype(np.int32)


def make_blocks(batch: Batch, anchors: NDArray[np.int32], block_size: int, mask_token: int, gamma: float) -> Blocks:
    """Blocks at `anchors` (S, A); slot k weighs exp(-(k - 1) / gamma)."""
    slots = np.arange(1, block_size)
    places = anchors[:, :, None] + slots
    inside = places < batch.lengths[:, None, None]
    places = np.minimum(places, batch.token_ids.shape[1] - 1).reshape(len(anchors), -1)
    labels = np.take_along_axis(batch.token_ids, places, axis=1).reshape(inside.shape)
    token_ids = np.full((*anchors.shape, block_size), mask_token, np.int32)
    token_ids[:, :, 0] = np.take_along_axis(batch.token_ids, anchors, axis=1)
    weights = np.exp(-(slots - 1) / gamma) * inside
    return Blocks(mx.array(anchors), mx.array(token_ids), mx.array(labels), mx.array(weights.astype(np.float32)))


def target_features(target: TreeTarget, token_ids: mx.array) -> mx.array:
    """(S, n) -> features (S, n, taps * D), float32 and frozen; layers above the last tap are never computed."""
    _, features = target.forward(token_ids, target.make_cache())
    assert features is not None, "the target's taps are not set"
    return mx.stop_gradient(features.astype(mx.float32))


def context_keys_values(drafter: DFlashDrafter, features: mx.array) -> list[KeysValues]:
    """Features (S, n, taps * D) -> each layer's context keys and values (S, kv_heads, n, head_dim)."""
    context = drafter.context(features)
    return [layer.self_attn.keys_values(context, 0) for layer in drafter.layers]


def draft_hidden(
    drafter: DFlashDrafter, embeddings: mx.array, context: Sequence[KeysValues], anchors: mx.array
) -> mx.array:
    """All blocks' forward: what DFlashDrafter computes with `anchor` tokens in its cache, for every anchor.

    embeddings: (S, A, B, D) of [token, MASK, ...].  anchors: (S, A) int32.
    Returns (S, A, B, D) normalised hidden states.
    """
    shape, dim = embeddings.shape, embeddings.shape[-1]
    block = embeddings.reshape(-1, shape[2], dim) * drafter.config.embed_scale
    for layer, keys_values in zip(drafter.layers, context, strict=True):
        block = layer.with_attention(block, partial(attend, layer.self_attn, context=keys_values, anchors=anchors))
    return drafter.norm(block).reshape(shape)


def attend(attention: DFlashAttention, block: mx.array, context: KeysValues, anchors: mx.array) -> mx.array:
    """Block rows (S * A, B, D), context (S, kv_heads, n, head_dim) each, anchors (S, A) -> (S * A, B, D).

    Blocks lie in the batch axis for projections and RoPE (one offset a row); the query heads that
    share a KV head lie in the row axis for the products, so no key is copied.
    """
    (sequences, count), size = anchors.shape, block.shape[1]
    kv_heads, offsets = attention.kv_heads, anchors.reshape(-1)

    def by_head(x: mx.array) -> mx.array:
        """(S * A, heads, B, d) -> (S, kv_heads, A, heads / kv_heads * B, d)."""
        return x.reshape(sequences, count, kv_heads, -1, x.shape[-1]).transpose(0, 2, 1, 3, 4)

    queries = by_head(attention.queries(block, offsets) * attention.scale)
    keys, values = (by_head(x) for x in attention.keys_values(block, offsets))
    context_keys, context_values = context
    length, rows = context_keys.shape[2], queries.shape[3]
    flat = queries.reshape(sequences, kv_heads, count * rows, -1)
    outside = (flat @ context_keys.swapaxes(-1, -2)).reshape(sequences, kv_heads, count, rows, length)
    inside = queries @ keys.swapaxes(-1, -2)
    context_bias, block_bias = attention_biases(attention, anchors, length, size)
    scores = mx.concatenate([outside + context_bias, inside if block_bias is None else inside + block_bias], axis=-1)
    shares = mx.softmax(scores, axis=-1)
    from_context = shares[..., :length].reshape(sequences, kv_heads, count * rows, length) @ context_values
    out = from_context.reshape(queries.shape) + shares[..., length:] @ values
    heads_last = out.reshape(sequences, kv_heads, count, rows // size, size, -1).transpose(0, 2, 4, 1, 3, 5)
    return attention.o_proj(heads_last.reshape(sequences * count, size, -1))


def attention_biases(
    attention: DFlashAttention, anchors: mx.array, length: int, size: int
) -> tuple[mx.array, mx.array | None]:
    """0 where a key is visible, else -inf: for the context, broadcastable to (S, kv_heads, A, heads /
    kv_heads * B, n), and inside the block, (heads / kv_heads * B, B) or None.

    The rule is that of drafter.model.block_mask, by which drafting sees.
    """
    groups, window = attention.heads // attention.kv_heads, attention.window
    keys, slots = mx.arange(length), mx.arange(size)
    visible = (keys < anchors[..., None])[:, :, None]  # (S, A, 1, n)
    if window is not None:
        queries = anchors[..., None] + slots
        visible = visible & (keys > (queries - window)[..., None])  # (S, A, B, n)
        visible = mx.tile(visible, (1, 1, groups, 1))
    inside = mx.ones((size, size), mx.bool_)
    if attention.causal:
        inside = inside & (slots <= slots[:, None])
    if window is not None:
        inside = inside & (slots > slots[:, None] - window)
    sees_all = not attention.causal and (window is None or window >= size)
    return _bias(visible)[:, None], None if sees_all else _bias(mx.tile(inside, (groups, 1)))


def _bias(visible: mx.array) -> mx.array:
    return mx.where(visible, mx.array(0.0), mx.array(-math.inf))


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
        labels_part, weights_part = labels[start : start + rows], weights[start : start + rows]
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
    if (selector := selector_of(drafter)) is None:
        return mx.array(0.0)
    rows = max(1, HEAD_CHUNK // target.vocab_size)
    total = mx.array(0.0)
    for start in range(0, len(hidden), rows):
        part, label = hidden[start : start + rows], labels[start : start + rows, None]
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
    return [mx.new_stream(mx.cpu) for _ in range(2)] if mx.default_device() == mx.cpu else [mx.default_stream(mx.gpu)]


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
            labels, weights = blocks.labels[rows].reshape(-1), blocks.weights[rows].reshape(-1)
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


def embed_blocks(target: TreeTarget, token_ids: mx.array) -> mx.array:
    """(S, A, B) -> frozen float32 (S, A, B, D)."""
    flat = token_ids.reshape(token_ids.shape[0], -1)
    return mx.stop_gradient(target.embed(flat).astype(mx.float32).reshape(*token_ids.shape, -1))
