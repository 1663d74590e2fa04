"""Any other mlx-lm model: plain decoding only, through the model's own call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.kernels.evaluate import evaluate
from mlx_ddtree.kernels.rope import Positions
from mlx_ddtree.target.between_rounds import MakesCaches
from mlx_ddtree.target.context_limit import context_limit
from mlx_ddtree.target.views import Mark, Pending
from mlx_ddtree.tree import DraftTree


class PlainTarget(MakesCaches):
    """Method 'ar' for architectures without an adapter; it has no taps and verifies no trees."""

    supports_trees = False

    def __init__(self, model: nn.Module) -> None:
        evaluate(model)
        self.model = model
        self.args = model.args
        self.model_type: str = model.args.model_type
        self.taps: tuple[int, ...] = ()
        self.num_caches = len(self.make_cache())
        self.kernels = NO_KERNELS

    @property
    def max_context(self) -> int | None:
        """Positions the model was made for, scaled rotary embeddings included; None when its config does not say."""
        return context_limit(self.args)

    def forward(self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0) -> tuple[mx.array, None]:
        """(1, n) -> logits (1, n, V): this model's head is not separable from the outside."""
        if isinstance(at, mx.array) or at:
            raise UnsupportedModelError(
                f"the positions of model type {self.model_type!r} cannot be set; use compact positions "
                "(--prefill-positions compact)"
            )
        return self.model(token_ids, cache=cache), None

    def unembed(self, hidden: mx.array) -> mx.array:
        return hidden

    unembed_tree = unembed

    def best_of_tree(self, hidden: mx.array, k: int) -> None:
        return None

    def head(self, hidden: mx.array) -> mx.array:
        raise self._refusal()

    def embed(self, token_ids: mx.array) -> mx.array:
        raise self._refusal()

    def forward_tree(
        self, token_ids: mx.array, tree: DraftTree, start: int, cache: Sequence[Any], gap: int = 0
    ) -> tuple[mx.array, None, Pending]:
        """A root alone is a step of plain decoding; anything else is refused."""
        if len(tree) > 1:
            raise self._refusal()
        return *self.forward(token_ids, cache, gap), Pending()

    def check_cache(self, cache: Sequence[Any]) -> None:
        """Plain decoding takes every cache."""

    def mark(self, cache: Sequence[Any]) -> Mark:
        return []

    def rewind(self, cache: Sequence[Any], marked: Mark) -> None:
        """Caches of unknown kinds cannot be turned back."""

    def _refusal(self) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"no tree verification for model type {self.model_type!r}; use method='ar' for plain decoding"
        )
