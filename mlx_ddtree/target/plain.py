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
from mlx_ddtree.target.anatomy import settings_of, text_of
from mlx_ddtree.target.between_rounds import MakesCaches
from mlx_ddtree.target.context_limit import context_limit
from mlx_ddtree.target.marks import Mark
from mlx_ddtree.target.rows import Rows
from mlx_ddtree.target.views import Pending


class PlainTarget(MakesCaches):
    """Method 'ar' for models that verify no trees; it has no taps."""

    supports_trees = False
    builds_ahead = False

    def __init__(self, model: nn.Module, why: str | None = None) -> None:
        """why: the reason for which this model verifies no trees, where a test has found one."""
        evaluate(model)
        self.model = model
        self.why = why
        self.args = settings_of(text_of(model))
        self.model_type: str = self.args.model_type
        self.taps: tuple[int, ...] = ()
        self.num_caches = len(self.make_cache())
        self.kernels = NO_KERNELS

    @property
    def max_context(self) -> int | None:
        """Positions the model was made for, scaled rotary embeddings included; None when its config does not say."""
        return context_limit(self.args)

    def forward(self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0) -> tuple[mx.array, None]:
        """Tokens (1, n) -> logits (1, n, V), because this model's head is not separable from the outside; no features.

        Raises UnsupportedModelError for positions other than the caches' own.
        """
        if isinstance(at, mx.array) or at:
            raise UnsupportedModelError(
                f"the positions of model type {self.model_type!r} cannot be set; use compact positions "
                "(--prefill-positions compact)"
            )
        return self.model(token_ids, cache=cache), None

    def forward_rows(self, token_ids: mx.array, rows: Rows, cache: Sequence[Any]) -> tuple[mx.array, None, Pending]:
        """A root alone is a step of plain decoding; anything else raises UnsupportedModelError."""
        if not rows.alone:
            raise self._refusal()
        logits, features = self.forward(token_ids, cache, rows.gap)
        return logits, features, Pending()

    def unembed(self, hidden: mx.array) -> mx.array:
        """Logits, which is what `forward` gave, as they are."""
        return hidden

    unembed_tree = unembed

    def best_of_tree(self, hidden: mx.array, k: int) -> None:
        """No kernel serves this model's head."""
        return None

    def head(self, hidden: mx.array) -> mx.array:
        """Raises UnsupportedModelError."""
        raise self._refusal()

    def embed(self, token_ids: mx.array) -> mx.array:
        """Raises UnsupportedModelError."""
        raise self._refusal()

    def check_cache(self, cache: Sequence[Any]) -> None:
        """Plain decoding takes every cache."""

    def mark(self, cache: Sequence[Any]) -> Mark:
        """Nothing: see `rewind`."""
        return []

    def fit_mark(self, cache: Sequence[Any], marked: Mark) -> None:
        """Nothing: such a mark holds nothing."""

    def rewind(self, cache: Sequence[Any], marked: Mark) -> None:
        """Caches of unknown kinds cannot be turned back."""

    def _refusal(self) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"no tree verification for model type {self.model_type!r}{self.because}; use method='ar' for plain decoding"
        )

    @property
    def because(self) -> str:
        """The reason in brackets, to put behind what is refused."""
        return "" if self.why is None else f" ({self.why})"
