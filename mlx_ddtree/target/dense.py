"""Targets whose layers are plain attention over a KV cache: qwen3, qwen3_moe, llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import make_prompt_cache

from mlx_ddtree.target.cache import check_cache, keep_rows, tree_view
from mlx_ddtree.target.rope import TreeRope
from mlx_ddtree.tree import DraftTree


class DenseTarget:
    """Runs an mlx-lm model's own modules, with taps, under a tree when asked.

    The model stays usable by mlx-lm: only each attention's `rope` is replaced, on this instance,
    by one that also takes a position per row.
    """

    supports_trees = True

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.args = model.args
        self.hidden_size: int = model.args.hidden_size
        self.vocab_size: int = model.args.vocab_size
        self.num_layers: int = len(model.layers)
        self.taps: tuple[int, ...] = ()
        # llama may mix sliding-window layers in; the other families have none.
        self.windows = [
            model.args.sliding_window if getattr(layer, "use_sliding", False) else None for layer in model.layers
        ]
        for layer in model.layers:
            if not isinstance(layer.self_attn.rope, TreeRope):
                layer.self_attn.rope = TreeRope(layer.self_attn.rope)

    @property
    def max_context(self) -> int | None:
        """Positions the model was made for, or None when its config does not say."""
        return getattr(self.args, "max_position_embeddings", None)

    def make_cache(self) -> list[Any]:
        return make_prompt_cache(self.model)

    def embed(self, token_ids: mx.array) -> mx.array:
        """(1, n) int -> (1, n, D)."""
        return self.model.model.embed_tokens(token_ids)

    def unembed(self, hidden: mx.array) -> mx.array:
        """(..., D) normalised hidden states -> (..., V) logits."""
        if self.args.tie_word_embeddings:
            return self.model.model.embed_tokens.as_linear(hidden)
        return self.model.lm_head(hidden)

    def forward(self, token_ids: mx.array, cache: Sequence[Any]) -> tuple[mx.array, mx.array | None]:
        """Consecutive tokens (1, n) -> normalised hidden states (1, n, D), features (1, n, taps * D)."""
        hidden = self.embed(token_ids)
        masks = {
            window: create_attention_mask(hidden, cache[self.windows.index(window)], window_size=window)
            for window in set(self.windows)
        }
        tapped = {}
        for i, (layer, layer_cache) in enumerate(zip(self.model.layers, cache, strict=True)):
            hidden = layer(hidden, masks[self.windows[i]], layer_cache)
            if i in self.taps:
                tapped[i] = hidden
        features = mx.concatenate([tapped[i] for i in self.taps], axis=-1) if self.taps else None
        return self.model.model.norm(hidden), features

    def forward_tree(
        self, token_ids: mx.array, tree: DraftTree, start: int, cache: Sequence[Any]
    ) -> tuple[mx.array, mx.array | None]:
        """The same for a tree's rows (1, N), padded behind the tree's own; see TreeRows."""
        return self.forward(token_ids, tree_view(cache, tree, start, token_ids.shape[1]))

    def check_cache(self, cache: Sequence[Any]) -> None:
        check_cache(cache)

    def commit(self, cache: Sequence[Any], start: int, path: Sequence[int]) -> None:
        """Of the rows appended behind `start`, keep those of `path`; none of them rolls back."""
        keep_rows(cache, start, path)
