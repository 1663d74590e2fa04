"""An mlx-lm model as a target: it runs its own code, with taps, and under a draft tree when asked.

Everything a family does by itself (scaled embeddings, alternating windows, shared keys, latent attention,
experts) stays mlx-lm's.  Five things are changed on this instance, and none of them changes what the model
computes for mlx-lm: rotary embeddings also take a position per row, and gaps (kernels/rope.py), tapped layers leave
their output (target/taps.py), gated delta layers also take a tree (target/gated_delta.py), attention and
quantised layers ask whether a kernel shall compute a tree's rows (target/attention.py, target/quantized.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.branches.rows import ForestRows
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.kernels.evaluate import evaluate
from mlx_ddtree.kernels.head import HeadTopK
from mlx_ddtree.kernels.quantized import MAX_ROWS
from mlx_ddtree.kernels.rope import Places, Positions, take_positions
from mlx_ddtree.target.attention import take_tree_attention
from mlx_ddtree.target.between_rounds import MakesCaches
from mlx_ddtree.target.context_limit import context_limit
from mlx_ddtree.target.gated_delta import take_trees
from mlx_ddtree.target.quantized import Products, head_weights, take_rows
from mlx_ddtree.target.taps import tap
from mlx_ddtree.target.views import AppendView, Mark, Pending, check_cache, mark, rewind, tree_views
from mlx_ddtree.tree import DraftTree


def text_of(model: nn.Module) -> Any:
    """The part of an mlx-lm model that speaks: multimodal checkpoints keep it apart."""
    return model.language_model if "language_model" in model else model


class TreeTarget(MakesCaches):
    """Families whose layers are attention or gated delta layers over caches that can hold a tree."""

    supports_trees = True

    def __init__(self, model: nn.Module) -> None:
        evaluate(model)
        self.model = model
        text = text_of(model)
        self.text, self.args = text, text.args
        self.hidden_size: int = self.args.hidden_size
        self.vocab_size: int = self.args.vocab_size
        self.layers: list[nn.Module] = text.model.layers  # None where another stage of a pipeline has the layer
        self.num_layers = len(self.layers)
        self.num_caches = len(self.make_cache())  # layers that share keys share a cache
        self.kernels = NO_KERNELS
        self._taps: tuple[int, ...] = ()
        self._tapped: dict[int, mx.array] = {}
        self.products, self.places = Products(), Places()
        take_rows(text, self.products)
        for layer in filter(None, self.layers):
            for module in layer.modules():
                take_positions(module, self.places)
                take_trees(module)
                take_tree_attention(module)

    @property
    def taps(self) -> tuple[int, ...]:
        """Layers whose outputs are the features."""
        return self._taps

    @taps.setter
    def taps(self, taps: Sequence[int]) -> None:
        self.tap(taps)

    def tap(self, taps: Sequence[int]) -> None:
        self._taps = tuple(taps)
        tap(self.layers, self._taps, self._tapped)

    @property
    def max_context(self) -> int | None:
        """Positions the model was made for, scaled rotary embeddings included; None when its config does not say."""
        return context_limit(self.args)

    def embed(self, token_ids: mx.array) -> mx.array:
        """(1, n) int -> (1, n, D), before the model's own `embed_scale`."""
        return self.text.model.embed_tokens(token_ids)

    def unembed(self, hidden: mx.array) -> mx.array:
        """(..., D) normalised hidden states -> (..., V) logits."""
        logits, cap = self.head(hidden), self.logit_softcap
        return logits if cap is None else mx.tanh(logits / cap) * cap

    def unembed_tree(self, hidden: mx.array) -> mx.array:
        """`unembed` of a verification's rows."""
        with self.products.by(self.kernels.of(len(hidden)).product):
            return self.unembed(hidden)

    def best_of_tree(self, hidden: mx.array, k: int) -> HeadTopK | None:
        """The k best tokens of a verification's rows (N, D) by a kernel that writes no logits, where there is one."""
        kernel, head = self.kernels.of(len(hidden)).head_top_k, head_weights(self._head_module)
        if kernel is None or head is None or not 2 <= len(hidden) <= MAX_ROWS:
            return None
        return kernel(hidden, head, k, soft_cap=self.logit_softcap)

    def head(self, hidden: mx.array) -> mx.array:
        """The same before the model's own `logit_softcap`."""
        head = self._head_module
        return (head if "lm_head" in self.text else head.as_linear)(hidden)

    @property
    def _head_module(self) -> Any:
        return self.text.lm_head if "lm_head" in self.text else self.text.model.embed_tokens

    @property
    def embed_scale(self) -> float:
        """What the model multiplies its embeddings by."""
        return float(getattr(self.text.model, "embed_scale", 1.0))

    @property
    def logit_softcap(self) -> float | None:
        return getattr(self.args, "final_logit_softcapping", None)

    def forward(self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0) -> tuple[mx.array, mx.array | None]:
        """Tokens (1, n), which stay in the cache -> normalised hidden states (1, n, D), features (1, n, taps * D).

        at: their positions (1, n), where rows and positions differ; or consecutive ones, `at` behind the rows.
        """
        return self.run(token_ids, cache, at)

    def run(self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0) -> tuple[mx.array, mx.array | None]:
        """The same, where views of caches may stand for caches."""
        with self.places.set(at):
            hidden = self.text.model(token_ids, cache=list(cache))
        features = self.features(hidden)
        self._tapped.clear()
        return hidden, features

    def features(self, hidden: mx.array) -> mx.array | None:
        """What the taps have seen of the forward that gave `hidden` (1, n, D): (1, n, taps * D), or None."""
        return mx.concatenate([self._tapped[i] for i in self.taps], axis=-1) if self.taps else None

    def forward_tree(
        self, token_ids: mx.array, tree: DraftTree, start: int, cache: Sequence[Any], gap: int = 0
    ) -> tuple[mx.array, mx.array | None, Pending]:
        """The same for a tree's rows (1, N), padded behind the tree's own; they await the commit.

        start: tokens in the cache; the root's position is start + gap.

        A root alone is a step of plain decoding, computed as such, and stays.
        """
        if token_ids.shape[1] == 1:
            return *self.forward(token_ids, cache, gap), Pending()
        rows = token_ids.shape[1]
        kernels = self.kernels.of(rows)
        views = tree_views(cache, tree, start, rows, kernels, gap)
        with self.products.by(kernels.product):
            return *self.run(token_ids, views), Pending(views, kernels.gather_rows)

    def forward_forest(
        self, token_ids: mx.array, rows: ForestRows, cache: Sequence[Any]
    ) -> tuple[mx.array, mx.array | None, Pending]:
        """The same for the trees of several branches (1, N), root alone or not; they await the commit."""
        views = [AppendView(layer_cache, rows) for layer_cache in cache]
        with self.products.by(rows.kernels.product):
            return *self.run(token_ids, views), Pending(views, rows.kernels.gather_rows)

    def check_cache(self, cache: Sequence[Any]) -> None:
        check_cache(cache)

    def mark(self, cache: Sequence[Any]) -> Mark:
        """Where the caches stand, for `rewind`."""
        return mark(cache)

    def rewind(self, cache: Sequence[Any], marked: Mark) -> None:
        """Undo everything since `mark`."""
        rewind(cache, marked)
