"""An mlx-lm model as a target: it runs its own code, with taps, and under a draft tree when asked.

Everything a family does by itself (scaled embeddings, alternating windows, shared keys, latent attention, experts)
stays mlx-lm's.  What its modules are asked for, and in what order, is one function: target/asking.py.  What they are
told while a forward runs, and what they leave behind, is one object: target/forward.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.base import create_attention_mask

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.kernels.choice import MLX, NO_KERNELS, KernelSet
from mlx_ddtree.kernels.evaluate import evaluate
from mlx_ddtree.kernels.head import HeadTopK
from mlx_ddtree.kernels.quantized import MAX_ROWS
from mlx_ddtree.kernels.rope import Positions
from mlx_ddtree.target.asking import ask
from mlx_ddtree.target.between_rounds import MakesCaches
from mlx_ddtree.target.context_limit import context_limit
from mlx_ddtree.target.forward import Forward, tap
from mlx_ddtree.target.marks import Mark, mark, rewind
from mlx_ddtree.target.quantized import head_weights, rows_of_head
from mlx_ddtree.target.rows import Rows
from mlx_ddtree.target.views import Pending, check_cache, views_of


class TreeTarget(MakesCaches):
    """Families whose layers are attention or gated delta layers over caches that can hold a tree.

    kernels: what verifications run in place of MLX's operations, by their number of rows.
    is_whole: whether all of the model is here.
    """

    supports_trees = True
    is_whole = True

    def __init__(self, model: nn.Module) -> None:
        """Raises UnsupportedModelError where the model's parts are not found."""
        evaluate(model)
        self.model = model
        self.current = Forward()
        self.asked = asked = ask(model, self.current, self.is_whole)
        self.anatomy = anatomy = asked.anatomy
        self.text = anatomy.text
        self.stack = anatomy.stack
        self.embedding = anatomy.embedding
        self.own_head = asked.own_head
        self.args = anatomy.settings
        vocab_size, hidden_size = anatomy.embedding_shape
        self.hidden_size: int = getattr(self.args, "hidden_size", hidden_size)
        self.vocab_size: int = getattr(self.args, "vocab_size", vocab_size)
        self.layers = anatomy.layers  # None where another stage of a pipeline has the layer
        self.num_layers = len(self.layers)
        self.num_caches = asked.caches  # layers that share keys share a cache
        self.kernels = NO_KERNELS
        self._taps: tuple[int, ...] = ()

    @property
    def builds_ahead(self) -> bool:
        """Whether `forward_rows` can be built before the rows' tokens, and where they stand, are known."""
        return not (self.asked.replays or self.asked.turns_by_length)

    @property
    def taps(self) -> tuple[int, ...]:
        """Layers whose outputs are the features."""
        return self._taps

    @taps.setter
    def taps(self, taps: Sequence[int]) -> None:
        self.tap(taps)

    def tap(self, taps: Sequence[int]) -> None:
        """Make the outputs of these layers the features from now on."""
        self._taps = tuple(taps)
        tap(self.layers, self._taps, self.current)

    @property
    def max_context(self) -> int | None:
        """Positions the model was made for, scaled rotary embeddings included; None when its config does not say."""
        return context_limit(self.args)

    # Between tokens and hidden states.

    def embed(self, token_ids: mx.array) -> mx.array:
        """(1, n) int -> (1, n, D), before the model's own `embed_scale`."""
        return self.embedding(token_ids)

    def head(self, hidden: mx.array) -> mx.array:
        """(..., D) normalised hidden states -> (..., V) logits before the model's own `logit_softcap`."""
        return self.anatomy.head(hidden) if self.own_head is None else self.own_head(hidden)

    def head_rows(self, token_ids: mx.array) -> mx.array | None:
        """The head's rows (n, D) for tokens (n,), where a product with them gives `head`'s logits; else None."""
        return None if self.own_head is not None else rows_of_head(self.anatomy.head_module, token_ids)

    def unembed(self, hidden: mx.array) -> mx.array:
        """(..., D) normalised hidden states -> (..., V) logits."""
        return self.anatomy.logits(hidden) if self.own_head is None else self.own_head(hidden)

    def bounded(self, logits: mx.array) -> mx.array:
        """What `head` gives, within the model's own `logit_softcap`."""
        return self.anatomy.bounded(logits) if self.own_head is None else logits

    def unembed_tree(self, hidden: mx.array) -> mx.array:
        """(N, D) of a verification's rows -> (N, V) logits."""
        with self.current.running(kernels=self.kernels.of(len(hidden))):
            return self.unembed(hidden)

    def best_of_tree(self, hidden: mx.array, k: int) -> HeadTopK | None:
        """The k best tokens of a verification's rows (N, D) by a kernel that writes no logits, where there is one."""
        kernel = self.kernels.of(len(hidden)).head_top_k
        if kernel is None or self.own_head is not None or not 2 <= len(hidden) <= MAX_ROWS:
            return None
        weights = head_weights(self.anatomy.head_module)
        if weights is None:
            return None
        return kernel(hidden, weights, k, soft_cap=self.logit_softcap)

    @property
    def embed_scale(self) -> float:
        """What the model multiplies its embeddings by."""
        return float(getattr(self.stack, "embed_scale", 1.0))

    @property
    def logit_softcap(self) -> float | None:
        """The bound c of logits c * tanh(x / c), for models that have one."""
        return self.anatomy.logit_bound if self.own_head is None else None

    # Forwards.

    def forward(self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0) -> tuple[mx.array, mx.array | None]:
        """Tokens (1, n), which stay in the cache -> normalised hidden states (1, n, D), features (1, n, taps * D).

        at: their positions (1, n), where rows and positions differ; or consecutive ones, `at` behind the cache's.
        Features are None without taps.
        """
        return self.run(token_ids, cache, at)

    def forward_rows(
        self, token_ids: mx.array, rows: Rows, cache: Sequence[Any]
    ) -> tuple[mx.array, mx.array | None, Pending]:
        """Tokens (1, N) of a draft tree's rows -> hidden states and features as from `forward`, and what awaits the
        commit: until then the caches stand where they stood.

        A root alone is a step of plain decoding, computed as such, and stays.
        """
        if rows.alone:
            hidden, features = self.forward(token_ids, cache, rows.gap)
            return hidden, features, Pending()
        kernels = self.kernels.of(rows.count)
        views = views_of(cache, rows, kernels)
        at = rows.positions if self.asked.turns_by_length or not rows.is_chain else rows.gap
        hidden, features = self.run(token_ids, views, at, kernels)
        return hidden, features, Pending(views, kernels.gather_rows)

    def run(
        self, token_ids: mx.array, cache: Sequence[Any], at: Positions = 0, kernels: KernelSet = MLX
    ) -> tuple[mx.array, mx.array | None]:
        """The model's own call, over caches or views of them; kernels: what its modules may use."""
        with self.current.running(at, kernels):
            hidden = self._stack(token_ids, list(cache))
            return hidden, self.features(hidden)

    def _stack(self, token_ids: mx.array, cache: list[Any]) -> mx.array:
        """The stack's own call; some leave it to their model to make the mask."""
        if not self.anatomy.takes_mask:
            return self.stack(token_ids, cache=cache)
        return self.stack(token_ids, mask=create_attention_mask(token_ids, cache[0]), cache=cache)

    def features(self, hidden: mx.array) -> mx.array | None:
        """What the taps have seen of the running forward, which gave `hidden` (1, n, D): (1, n, taps * D), or None.

        Raises UnsupportedModelError where layers give something else than hidden states.
        """
        if not self._taps:
            return None
        outputs = [self.current.outputs[i] for i in self._taps]
        if outputs[0].ndim != hidden.ndim:
            raise UnsupportedModelError(
                "between layers this model carries several streams, which no drafter reads: leave the drafter out "
                "(draft=False / no --draft-model)"
            )
        return mx.concatenate(outputs, axis=-1)

    # Caches.

    def check_cache(self, cache: Sequence[Any]) -> None:
        """Raise UnsupportedModelError unless a draft tree can go through this model with these caches."""
        if self.asked.counts_places:
            raise UnsupportedModelError("its sparse attention counts blocks by places in the cache")
        check_cache(cache)

    def mark(self, cache: Sequence[Any]) -> Mark:
        """Where the caches stand, for `rewind`."""
        return mark(cache)

    def rewind(self, cache: Sequence[Any], marked: Mark) -> None:
        """Undo everything since `mark`."""
        rewind(cache, marked)
