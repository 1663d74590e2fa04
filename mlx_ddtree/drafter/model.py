"""The DFlash drafter (arXiv 2602.06036): one forward pass proposes a whole block.

The drafter is a small transformer whose keys and values also come from the target's hidden states.  Most have no
embedding and no LM head of their own and speak through the target's.

This file is the layers that all drafters share.  What some have besides is made of parts: other layers (make.LAYERS),
and heads that stand on them (make.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import KVCache
from mlx_lm.models.qwen3 import MLP
from mlx_lm.models.rope_utils import initialize_rope

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.path_heads import Embed, PathHead
from mlx_ddtree.drafter.selector import CandidateSelector
from mlx_ddtree.drafter.vocabulary import DraftVocabulary
from mlx_ddtree.drafter.window import WindowCache
from mlx_ddtree.errors import OptionError
from mlx_ddtree.kernels.evaluate import evaluate
from mlx_ddtree.kernels.rope import Positions, TreeRope

Sublayer = Callable[[mx.array], mx.array]
"""From normalised rows (N, B, D) to what is added to them."""
Head = Callable[[mx.array], mx.array]
"""From normalised hidden states (..., D) to logits (..., V)."""
ContextCache = KVCache | WindowCache
"""What a layer keeps of the context."""


class DFlashAttention(nn.Module):
    """Queries from the block; keys and values from the context features and the block.

    sinks: (heads,) logits of a key without a value that every query sees, or None.
    """

    sinks: mx.array | None = None

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        self.window = config.windows[layer]
        self.causal = config.causal[layer]
        dim = config.hidden_size
        head_dim = config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(dim, self.heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(dim, self.kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(self.heads * head_dim, dim, bias=bias)
        self.q_norm = nn.RMSNorm(head_dim, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(head_dim, eps=config.rms_norm_eps)
        rope = initialize_rope(
            config.rope_dims or head_dim,
            config.rope_theta,
            config.rope_traditional,
            config.rope_scaling,
            config.max_position_embeddings,
        )
        self.rope = TreeRope(rope)
        evaluate(self.rope)

    def _split(self, x: mx.array, heads: int) -> mx.array:
        return x.reshape(*x.shape[:2], heads, x.shape[-1] // heads)

    def keys_values(self, x: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        """(1, n, D) rows at positions offset.., or at positions (1, n) -> keys, values (1, kv_heads, n, head_dim)."""
        keys = self.k_norm(self._split(self.k_proj(x), self.kv_heads)).transpose(0, 2, 1, 3)
        values = self._split(self.v_proj(x), self.kv_heads).transpose(0, 2, 1, 3)
        return self.rope(keys, offset=offset), values

    def context_keys_values(self, context: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        """What `keys_values` is for the block's rows, for rows of the context."""
        return self.keys_values(context, offset)

    def queries(self, x: mx.array, offset: Positions) -> mx.array:
        """(1, B, D) at such positions -> (1, heads, B, head_dim)."""
        return self.rope(self.q_norm(self._split(self.q_proj(x), self.heads)).transpose(0, 2, 1, 3), offset=offset)

    def all_keys_values(self, context: mx.array, block: mx.array, offset: Positions) -> tuple[mx.array, mx.array]:
        """Context rows (1, m, D) and the block's (1, B, D) behind them, at positions offset.. or (1, m + B): one
        projection, one RoPE -> keys, values (1, kv_heads, m + B, head_dim)."""
        return self.keys_values(mx.concatenate([context, block], axis=1), offset)

    def output(self, attended: mx.array, block: mx.array) -> mx.array:
        """What the heads read (N, B, heads * head_dim), and the rows (N, B, D) that asked -> (N, B, D)."""
        return self.o_proj(attended)

    def __call__(self, block: mx.array, context: mx.array, cache: ContextCache, gap: int = 0) -> mx.array:
        """block (1, B, D); context (1, m, D), the features not yet in the cache -> (1, B, D).

        gap: the context's first position minus the cache's rows.
        Leaves the context's keys and values in the cache and takes the block's out again: they
        belong to a draft, not to the text.
        """
        size = block.shape[1]
        # 1. Context rows and block rows stand at consecutive positions.
        keys, values = cache.update_and_fetch(*self.all_keys_values(context, block, cache.offset + gap))
        start = cache.offset - size
        queries = self.queries(block, start + gap)
        cache.trim(size)
        # 2. Of what the cache has stored, no query looks further back than the window.
        stored_from = start + size - keys.shape[2]
        first = stored_from
        if self.window is not None:
            first = max(stored_from, start - self.window + 1)
        keys = keys[:, :, first - stored_from :]
        values = values[:, :, first - stored_from :]
        # 3. The block attends to that and to itself.
        mask = block_mask(start, size, first, self.window, self.causal)
        out = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask, sinks=self.sinks)
        return self.output(out.transpose(0, 2, 1, 3).reshape(1, size, -1), block)


def block_mask(start: int, size: int, first: int, window: int | None, causal: bool) -> mx.array | None:
    """(size, start + size - first) bool, or None where every key is visible.

    The block's query i stands at position start + i; keys stand at first..start + size - 1.
    """
    slides = window is not None and start + size > window
    if not causal and not slides:
        return None
    queries = mx.arange(start, start + size)[:, None]
    keys = mx.arange(first, start + size)[None]
    visible = keys < start + size
    if causal:
        visible = visible & (keys <= queries)
    if window is not None:
        visible = visible & (keys > queries - window)
    return mx.broadcast_to(visible, (size, start + size - first))


class DFlashLayer(nn.Module):
    """Pre-norm attention and MLP, as in Qwen3."""

    attention_type: type[DFlashAttention] = DFlashAttention

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = self.attention_type(config, layer)
        self.mlp = MLP(config.hidden_size, config.intermediate_size)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, block: mx.array, context: mx.array, cache: ContextCache, gap: int = 0) -> mx.array:
        return self.with_attention(block, lambda rows: self.self_attn(rows, context, cache, gap))

    def with_attention(self, block: mx.array, attend: Sublayer) -> mx.array:
        """The layer around `attend`, a sublayer: drafting and training reach the same attention in different ways."""
        block = block + attend(self.input_layernorm(block))
        return block + self.mlp(self.post_attention_layernorm(block))


class DFlashDrafter(nn.Module):
    """config.num_hidden_layers layers over `taps` target layers' hidden states."""

    layer_type: type[DFlashLayer] = DFlashLayer

    def __init__(self, config: DrafterConfig, taps: int) -> None:
        super().__init__()
        self.config = config
        self.num_taps = taps
        self.fc = nn.Linear(taps * config.hidden_size, config.hidden_size, bias=False)
        self.hidden_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layers = [self.layer_type(config, i) for i in range(config.num_hidden_layers)]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def make_cache(self) -> list[ContextCache]:
        """One context cache a layer: keys and values of committed tokens' features only."""
        windows = [layer.self_attn.window for layer in self.layers]
        return [KVCache() if window is None else WindowCache(window) for window in windows]

    def limit_window(self, window: int) -> None:
        """From now on no layer sees more than the last `window` tokens.  Caches made before do not fit any more.

        The target verifies whatever is drafted, so only the acceptance length can change.  Raises OptionError.
        """
        if window < 1:
            raise OptionError(f"draft window {window} is out of range: use 1 token or more")
        windows = tuple(window if known is None else min(known, window) for known in self.config.windows)
        self.config = replace(self.config, windows=windows)
        for layer, own in zip(self.layers, windows, strict=True):
            layer.self_attn.window = own

    def context(self, features: mx.array) -> mx.array:
        """Target features (1, m, taps * D) -> the context rows (1, m, D) that all layers share."""
        if features.shape[1] == 0:  # MLX's quantised product divides by the number of rows
            return mx.zeros((1, 0, self.config.hidden_size), features.dtype)
        return self.hidden_norm(self.fc(features))

    def contexts(self, features: mx.array) -> list[mx.array]:
        """Target features (1, m, taps * D) -> every layer's context rows (1, m, D)."""
        return [self.context(features)] * len(self.layers)

    def extend(self, features: mx.array, cache: Sequence[ContextCache], at: Positions = 0) -> None:
        """Append features (1, m, taps * D) of committed tokens to the context, without drafting.

        at: their positions (1, m), or consecutive ones, `at` behind the cache's rows.
        """
        for layer, context, layer_cache in zip(self.layers, self.contexts(features), cache, strict=True):
            positions = at if isinstance(at, mx.array) else layer_cache.offset + at
            layer_cache.update_and_fetch(*layer.self_attn.context_keys_values(context, positions))

    def __call__(self, block: mx.array, features: mx.array, cache: Sequence[ContextCache], gap: int = 0) -> mx.array:
        """One draft.

        block: (1, B, D) embeddings of [bonus token, MASK, MASK, ...] (`embed`).
        features: (1, m, taps * D) of the tokens committed since the last draft (m >= 0), which
            end just before the bonus token; they are appended to the cache.
        gap: the next token's position minus the cache's rows.
        Returns (1, B, D) normalised hidden states; slot i predicts the i-th next token, or with `logits_start` 0 the
        one behind it.
        """
        block = self.scale_embeddings(block)
        for layer, context, layer_cache in zip(self.layers, self.contexts(features), cache, strict=True):
            block = layer(block, context, layer_cache, gap)
        return self.norm(block)

    def no_features(self, rows: int = 0) -> mx.array:
        """(1, rows, taps * D) zeros in place of features."""
        return mx.zeros((1, rows, self.num_taps * self.config.hidden_size), self.hidden_norm.weight.dtype)

    def block_ids(self, root: int, block_size: int) -> list[int]:
        """The tokens of a block's rows for a draft of `block_size` tokens, the root included."""
        return [root] + [self.config.mask_token_id] * (self.config.rows(block_size) - 1)

    def embed(self, token_ids: mx.array, embed_with_target: Embed) -> mx.array:
        """(1, n) int -> (1, n, D), with the drafter's own table where it has one."""
        return self.embed_tokens(token_ids) if self.config.own_embedding else embed_with_target(token_ids)

    def logits(self, hidden: mx.array, head_of_target: Head) -> mx.array:
        """(..., D) normalised hidden states -> (..., V) logits of the target's tokens, with the drafter's own head
        where it has one; -inf for tokens that it cannot propose."""
        head = self.lm_head if self.config.own_head else head_of_target
        logits = self.scale_logits(head(hidden))
        return logits if self.vocabulary is None else self.vocabulary.spread(logits, -mx.inf)

    @property
    def scores_pairs(self) -> bool:
        """Whether what the drafter says of a token depends on the tokens before it."""
        return self.selector is not None or self.path_head is not None

    @property
    def path_head(self) -> PathHead | None:
        """What scores tokens by those before them, where there is such a head."""
        head: PathHead | None = self.get("markov_head", self.get("domino"))
        return head

    @property
    def selector(self) -> CandidateSelector | None:
        """What scores pairs of tokens, where there is one."""
        selector: CandidateSelector | None = self.get("candidate_selector")
        return selector

    @property
    def vocabulary(self) -> DraftVocabulary | None:
        """The tokens that can be proposed, where they are not all."""
        if self.config.draft_vocab_size is None or self.config.vocab_size is None:
            return None
        return DraftVocabulary(self.d2t, self.config.vocab_size)

    def scale_embeddings(self, block: mx.array) -> mx.array:
        """The multiplier on embeddings and what rows are told of their noise, where there is either."""
        if self.config.embed_scale != 1.0:
            block = block * self.config.embed_scale
        return block + self.log_snr_embed(block.shape[1]) if self.config.log_snr else block

    def scale_logits(self, logits: mx.array) -> mx.array:
        """The checkpoint's own multiplier and soft cap on logits, where it has them."""
        if self.config.logit_scale != 1.0:
            logits = logits * self.config.logit_scale
        if self.config.logit_softcap is not None:
            logits = mx.tanh(logits / self.config.logit_softcap) * self.config.logit_softcap
        return logits
