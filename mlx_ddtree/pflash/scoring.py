"""How important each token of a prompt is, seen from the prompt's end (PFlash; approximate).

A model reads the prompt once; what counts is how much attention its last rows pay to every token: softmax of q . k
over the tokens up to the row, the maximum over layers and heads, then the mean over rows.  Queries and keys are taken
before RoPE, so that distance does not fade a token.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models import base
from mlx_lm.models.cache import KVCache, make_prompt_cache
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError, PromptError, UnsupportedModelError
from mlx_ddtree.kernels.rope import TreeRope
from mlx_ddtree.pflash.block_sparse import BlockSparseAttention
from mlx_ddtree.target import TREE_FAMILIES, TreeTarget, family_of, text_of
from mlx_ddtree.target.attention import attending_by, names_attention

Progress = Callable[[int, int], None]
SELF_SHARE = 0.9
SELF_SCORING = 1
"""The share of a target's layers that runs over its own prompts, and how many of these score: measured on the embedded
pair, where the layers before the last but one find nothing (docs/prefill_compression.md)."""
_ALTERNATIVES = "use another model as the scorer, or the scorer 'lexical'"


class Scorer(Protocol):
    """What gives every token of a prompt its importance."""

    def __call__(
        self, token_ids: Sequence[int], progress: Progress | None = None, *, tail_end: int | None = None
    ) -> NDArray[np.float32]:
        """(S,) token ids of the target -> (S,) importance, larger is more important.

        progress: called with (tokens processed, tokens in all).
        tail_end: where the text ends that asks; default: the prompt's end, or before a template's closing tokens
            where the scorer was told these.
        """


class TailAttentionScorer:
    """A model's attention from the prompt's last tokens to all of it.

    model: an mlx-lm model, all of whose layers score, or a target, whose first ones do (SELF_SHARE).  Only layers of
    full attention score; layers with windows, gated delta layers and layers without RoPE are run and skipped.  Models
    with latent attention (MLA) are refused: what they attend with before RoPE is not to be seen from outside.
    layers: how many of its first layers run.
    scoring: how many of these score, the last ones of full attention; default: 1 of a target's, all of a model's.
    closing: what a template puts after the text that asks (`closing_tokens`); prompts that end in it are scored from
        before it, which finds much more.
    rows: queries at the end.
    step: prompt tokens at a time.
    sparse_from: prompts of so many tokens are read with `sparse` attention, shorter ones with dense.

    The model itself stays as it is: its layers run as shallow copies that share all weights.
    """

    def __init__(
        self,
        model: nn.Module | TreeTarget,
        *,
        layers: int | None = None,
        scoring: int | None = None,
        closing: Sequence[int] = (),
        rows: int = 8,
        before_rope: bool = True,
        step: int = 2048,
        sparse: BlockSparseAttention | None = None,
        sparse_from: int = 32_768,
    ) -> None:
        if rows < 1 or step < 1:
            raise OptionError(f"rows {rows} and step {step} must be at least 1")
        self.sparse, self.sparse_from = sparse or BlockSparseAttention(), sparse_from
        if step % self.sparse.block:
            raise OptionError(f"step {step} must be a multiple of the attention's block of {self.sparse.block}")
        self.rows, self.before_rope, self.step = rows, before_rope, step
        owner = model.model if isinstance(model, TreeTarget) else model
        if (family := family_of(owner)) not in TREE_FAMILIES:
            raise UnsupportedModelError(f"models of the type {family!r} cannot score prompts here; {_ALTERNATIVES}")
        text = text_of(owner)
        total = len(text.model.layers)
        own_first = isinstance(model, TreeTarget)
        layers = layers if layers is not None else math.ceil(total * SELF_SHARE) if own_first else total
        scoring = scoring if scoring is not None else SELF_SCORING if own_first else total
        if not 1 <= layers <= total or scoring < 1:
            raise OptionError(f"{scoring} of the first {layers} layers cannot score in a model of {total}")
        self.closing = tuple(closing)
        self._make_cache = lambda: make_prompt_cache(owner)
        full = _full_attention_layers(text, self._make_cache(), layers)
        self.scoring = full[-scoring:]
        watched = {i: _Watched(self, scores=i in self.scoring, last=i == full[-1]) for i in full}
        self._watched = {i: watched[i] for i in self.scoring}
        self.text, self._inner = text, copy.copy(text.model)
        self._inner.layers = [_twin(layer, watched.get(i)) for i, layer in enumerate(text.model.layers[: full[-1] + 1])]
        self._length = 0

    @property
    def layers(self) -> int:
        """The model's layers that run; of the last one only queries and keys are computed."""
        return self.scoring[-1] + 1

    def __call__(
        self, token_ids: Sequence[int], progress: Progress | None = None, *, tail_end: int | None = None
    ) -> NDArray[np.float32]:
        end = asking_end(token_ids, self.closing, tail_end)
        seen = mx.zeros((min(self.rows, end), end))
        for _, rows in self.rows_of_layers(token_ids[:end], progress):
            seen = mx.maximum(seen, rows)
            mx.eval(seen)
        return np.pad(np.array(seen.mean(axis=0)), (0, len(token_ids) - end))

    def rows_of_layers(
        self, token_ids: Sequence[int], progress: Progress | None = None
    ) -> Iterator[tuple[int, mx.array]]:
        """Layer by layer, what the last `rows` tokens pay to each of S tokens: (rows, S) fp32, the heads' largest."""
        report, total, cache = progress or (lambda done, total: None), len(token_ids), self._make_cache()
        self._length, self.sparse.kept, self.sparse.causal = total, 0, 0
        try:
            report(0, total)
            for start in range(0, total, self.step):
                chunk = token_ids[start : start + self.step]
                self._inner(mx.array(list(chunk))[None], cache=cache)  # its output is never computed
                mx.eval([w.state for w in self._watched.values()], [c.state for c in cache if not c.empty()])
                report(start + len(chunk), total)
                mx.clear_cache()
            for layer, watched in self._watched.items():
                yield layer, tail_attention(*watched.tail(), watched.scale)
        finally:
            for watched in self._watched.values():
                watched.forget()


def closing_tokens(tokenizer: Any) -> tuple[int, ...]:
    """What the chat template puts after a user's last message; nothing where there is no template."""
    if not getattr(tokenizer, "has_chat_template", False):
        return ()
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        for text in ("What is it?", "Find 7", "hello", "Sort a list.", "of each one")
    ]
    same = 0
    while len({prompt[-same - 1] for prompt in prompts}) == 1:
        same += 1
    return tuple(prompts[0][len(prompts[0]) - same :])


def asking_end(token_ids: Sequence[int], closing: Sequence[int], tail_end: int | None = None) -> int:
    """`tail_end`, or else where a prompt's text ends before the `closing` tokens.  Raises PromptError if it is not in
    the prompt."""
    if tail_end is None:
        size = len(closing)
        ends = 0 < size < len(token_ids) and list(token_ids[-size:]) == list(closing)
        return len(token_ids) - size if ends else len(token_ids) or asking_end(token_ids, (), 0)
    if not 0 < tail_end <= len(token_ids):
        raise PromptError(f"the asking text ends at token {tail_end} of {len(token_ids)}; it must end in the prompt")
    return tail_end


def tail_attention(queries: mx.array, keys: mx.array, scale: float) -> mx.array:
    """queries (1, Hq, T, D) of the last T of P positions, keys (1, H, P, D) -> (T, P) fp32: the largest causal
    attention probability over all heads."""
    heads, rows, places = keys.shape[1], queries.shape[2], keys.shape[2]
    grouped = queries.astype(mx.float32).reshape(heads, -1, rows, queries.shape[-1]) * scale
    seen = mx.arange(places)[None] <= mx.arange(places - rows, places)[:, None]
    best = mx.zeros((rows, places))
    for head in range(heads):  # one at a time: rows x places x all heads would be the largest array of a scoring
        logits = grouped[head] @ keys[0, head].astype(mx.float32).T
        best = mx.maximum(best, mx.softmax(mx.where(seen, logits, -mx.inf), axis=-1).max(axis=0))
    return best


class _Watched:
    """One layer's full attention; of one that scores it keeps the keys of all tokens and the last rows' queries."""

    def __init__(self, scorer: TailAttentionScorer, scores: bool, last: bool) -> None:
        self._scorer, self._scores, self._last = scorer, scores, last
        self.turned: list[tuple[mx.array, mx.array]] = []
        self.forget()

    def forget(self) -> None:
        self.turned.clear()
        self._keys: list[mx.array] = []
        self._queries: mx.array | None = None
        self.scale = 1.0

    @property
    def state(self) -> list[mx.array]:
        return [*self._keys[-1:], *([] if self._queries is None else [self._queries])]

    def tail(self) -> tuple[mx.array, mx.array]:
        """Queries (1, Hq, T, D) and keys (1, H, P, D)."""
        assert self._queries is not None
        return self._queries, mx.concatenate(self._keys, axis=2)

    def attention(
        self, queries: mx.array, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: Any = None
    ) -> mx.array:
        """Stands for mlx_lm's function in this layer."""
        scorer = self._scorer
        if self._scores:
            self._keep(queries, keys, scale)
        self.turned.clear()
        if self._last:
            return mx.zeros((*queries.shape[:3], values.shape[-1]), queries.dtype)  # nobody reads it
        if scorer._length >= scorer.sparse_from and isinstance(mask, str) and sinks is None:
            return scorer.sparse(queries, keys, values, scale, scorer._length)
        return base.scaled_dot_product_attention(queries, keys, values, cache, scale, mask, sinks)

    def _keep(self, queries: mx.array, keys: mx.array, scale: float) -> None:
        if self._scorer.before_rope:
            # The rotary embedding was called for queries and keys, in this order or the other.
            (new,) = (x for x, y in self.turned if y is not queries)
            (queries,) = (x for x, y in self.turned if y is queries)
        else:
            new = keys[..., -queries.shape[2] :, :]
        rows = self._scorer.rows
        last = queries[..., -rows:, :]
        before = [] if self._queries is None else [self._queries]
        self._queries = mx.concatenate([*before, last], axis=2)[..., -rows:, :]
        self._keys, self.scale = [*self._keys, new], scale


class _WatchedRope(nn.Module):
    """Stands for a copied attention module's rotary embedding and shows what went in."""

    def __init__(self, rope: nn.Module, watched: _Watched) -> None:
        super().__init__()
        self.rope, self._watched = rope.rope if isinstance(rope, TreeRope) else rope, watched

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        turned = self.rope(x, offset=offset)
        self._watched.turned.append((x, turned))
        return turned


def _full_attention_layers(text: Any, cache: Sequence[Any], layers: int) -> list[int]:
    """Those of the first `layers` that attend to everything; raises UnsupportedModelError if there are none."""
    found = []
    for i, layer in enumerate(text.model.layers):
        name = _attention_name(layer)
        if name is not None and hasattr(layer[name], "kv_lora_rank"):
            raise UnsupportedModelError(
                f"model type {text.args.model_type!r} has latent attention (MLA), which cannot score a prompt; "
                f"{_ALTERNATIVES}"
            )
        if name is not None and i < len(cache) and type(cache[i]) is KVCache:
            found.append(i)
    if not found or found[0] >= layers:
        where = f"; the first is number {found[0] + 1}" if found else ""
        raise UnsupportedModelError(
            f"none of the first {layers} layers of model type {text.args.model_type!r} is full attention with RoPE"
            f"{where}; use more layers, or {_ALTERNATIVES}"
        )
    return [i for i in found if i < layers]


def _attention_name(layer: Any) -> str | None:
    """Under which name a layer has an attention module whose queries and keys can be seen."""
    for name, child in layer.items():
        if isinstance(child, nn.Module) and "rope" in child and names_attention(child):
            return str(name)
    return None


def _twin(layer: Any, watched: _Watched | None) -> Any:
    """A copy of a layer with the same weights, without taps, whose attention is watched."""
    twin = copy.copy(layer)
    twin.__class__ = getattr(type(layer), "untapped", type(layer))
    name = _attention_name(layer)
    if watched is not None and name is not None:
        attention = copy.copy(layer[name])
        attention.rope = _WatchedRope(attention.rope, watched)
        attention.__class__ = attending_by(type(attention), watched.attention)
        twin[name] = attention
    return twin
