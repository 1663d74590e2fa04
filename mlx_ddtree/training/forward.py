"""The training forward of a DFlash drafter: many blocks of many sequences at once.

Each block sees the features of the positions before its anchor and itself, nothing of other blocks: what a draft at
that place would see (arXiv 2602.06036).  Scores against the context and inside the block are computed apart and
joined in one softmax, so the cost is linear in the number of blocks.

Shapes: S sequences of n tokens, A anchors each, blocks of B = L + 1, hidden size D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import mlx.core as mx

from mlx_ddtree.drafter.model import DFlashAttention, DFlashDrafter
from mlx_ddtree.target import TreeTarget

KeysValues = tuple[mx.array, mx.array]


def embed_blocks(target: TreeTarget, token_ids: mx.array) -> mx.array:
    """(S, A, B) -> frozen float32 (S, A, B, D)."""
    flat = token_ids.reshape(token_ids.shape[0], -1)
    return mx.stop_gradient(target.embed(flat).astype(mx.float32).reshape(*token_ids.shape, -1))


def target_features(target: TreeTarget, token_ids: mx.array) -> mx.array:
    """(S, n) -> features (S, n, taps * D), float32 and frozen; layers above the last tap are never computed."""
    _, features = target.forward(token_ids, target.make_cache())
    assert features is not None, "the target's taps are not set"
    return mx.stop_gradient(features.astype(mx.float32))


def context_keys_values(drafter: DFlashDrafter, features: mx.array) -> list[KeysValues]:
    """Features (S, n, taps * D) -> each layer's context keys and values (S, kv_heads, n, head_dim)."""
    contexts = zip(drafter.layers, drafter.contexts(features), strict=True)
    return [layer.self_attn.context_keys_values(context, 0) for layer, context in contexts]


def draft_hidden(
    drafter: DFlashDrafter, embeddings: mx.array, context: Sequence[KeysValues], anchors: mx.array
) -> mx.array:
    """All blocks' forward: what DFlashDrafter computes with `anchor` tokens in its cache, for every anchor.

    embeddings: (S, A, B, D) of [token, MASK, ...].  anchors: (S, A) int32.
    Returns (S, A, B, D) normalised hidden states.
    """
    shape = embeddings.shape
    block = embeddings.reshape(-1, shape[2], shape[3]) * drafter.config.embed_scale
    for layer, keys_values in zip(drafter.layers, context, strict=True):
        block = layer.with_attention(block, partial(attend, layer.self_attn, context=keys_values, anchors=anchors))
    return drafter.norm(block).reshape(shape)


def slot_hidden(
    drafter: DFlashDrafter, embeddings: mx.array, context: Sequence[KeysValues], anchors: mx.array
) -> mx.array:
    """`draft_hidden` of the rows that predict: (S, A, L, D)."""
    return draft_hidden(drafter, embeddings, context, anchors)[:, :, drafter.config.logits_start :]


def attend(attention: DFlashAttention, block: mx.array, context: KeysValues, anchors: mx.array) -> mx.array:
    """Block rows (S * A, B, D), context (S, kv_heads, n, head_dim) each, anchors (S, A) -> (S * A, B, D).

    Blocks lie in the batch axis for projections and RoPE (one offset a row); the query heads that
    share a KV head lie in the row axis for the products, so no key is copied.
    """
    sequences, count = anchors.shape
    size = block.shape[1]
    kv_heads = attention.kv_heads
    offsets = anchors.reshape(-1)

    def by_head(x: mx.array) -> mx.array:
        """(S * A, heads, B, d) -> (S, kv_heads, A, heads / kv_heads * B, d)."""
        return x.reshape(sequences, count, kv_heads, -1, x.shape[-1]).transpose(0, 2, 1, 3, 4)

    # 1. Queries, keys and values of the blocks.
    queries = by_head(attention.queries(block, offsets) * attention.scale)
    block_keys, block_values = attention.keys_values(block, offsets)
    keys = by_head(block_keys)
    values = by_head(block_values)
    rows = queries.shape[3]

    # 2. Scores against the context and inside the blocks, in one softmax.
    context_keys, context_values = context
    length = context_keys.shape[2]
    flat = queries.reshape(sequences, kv_heads, count * rows, -1)
    outside = (flat @ context_keys.swapaxes(-1, -2)).reshape(sequences, kv_heads, count, rows, length)
    inside = queries @ keys.swapaxes(-1, -2)
    context_bias, block_bias = attention_biases(attention, anchors, length, size)
    if block_bias is not None:
        inside = inside + block_bias
    shares = mx.softmax(mx.concatenate([outside + context_bias, inside], axis=-1), axis=-1)

    # 3. What both give, and the output projection.
    from_context = shares[..., :length].reshape(sequences, kv_heads, count * rows, length) @ context_values
    out = from_context.reshape(queries.shape) + shares[..., length:] @ values
    heads_last = out.reshape(sequences, kv_heads, count, rows // size, size, -1).transpose(0, 2, 4, 1, 3, 5)
    return attention.output(heads_last.reshape(sequences * count, size, -1), block)


def attention_biases(
    attention: DFlashAttention, anchors: mx.array, length: int, size: int
) -> tuple[mx.array, mx.array | None]:
    """0 where a key is visible, else -inf: for the context, broadcastable to (S, kv_heads, A, heads /
    kv_heads * B, n), and inside the block, (heads / kv_heads * B, B) or None.

    The rule is that of drafter.model.block_mask, by which drafting sees.
    """
    groups = attention.heads // attention.kv_heads
    window = attention.window
    keys = mx.arange(length)
    slots = mx.arange(size)
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
    context_bias = _bias(visible)[:, None]
    if not attention.causal and (window is None or window >= size):
        return context_bias, None
    return context_bias, _bias(mx.tile(inside, (groups, 1)))


def _bias(visible: mx.array) -> mx.array:
    """What is added to scores: 0 where a key is visible, else -inf."""
    return mx.where(visible, mx.array(0.0), mx.array(-math.inf))
