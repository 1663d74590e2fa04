"""What a model of mlx-lm is asked when it is loaded, and in what order.

mlx-lm's own code computes every tree.  What it has to ask us for (positions, masks, states, kernels) is found here by
what a module is, not by the family's name, and is changed on this instance only; what it computes for mlx-lm stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from mlx_ddtree.target.anatomy import Anatomy, OwnHead, find_anatomy
from mlx_ddtree.target.attention import adapt_attention
from mlx_ddtree.target.forward import Forward
from mlx_ddtree.target.gated_delta import adapt_gated_delta
from mlx_ddtree.target.positions import adapt_positions, turns_by_length
from mlx_ddtree.target.quantized import adapt_quantized
from mlx_ddtree.target.replay import adapt_recurrent, carries_states

LOUD = 30.0
"""What random hidden states are multiplied by, so that their logits reach whatever bounds a model sets."""
SAME = 0.01
"""Difference of two heads, of the largest logit, that rounding may make; no scale or bound makes so little."""


@dataclass(frozen=True)
class Asked:
    """What a model has answered.

    anatomy: its parts.
    caches: one for each layer, or fewer where layers share them.
    turns_by_length: whether its rotary embeddings go by the length of the text up to a row.
    counts_places: whether its attention picks by places in the cache, so that a tree's rows cannot stand in it.
    replays: whether recurrent layers run every path of a tree, which must then be known before the graph is made.
    own_head: the model's own way to logits, where its head alone does not give them.
    """

    anatomy: Anatomy
    caches: int
    turns_by_length: bool
    counts_places: bool
    replays: bool
    own_head: OwnHead | None


def ask(model: nn.Module, forward: Forward, whole: bool = True) -> Asked:
    """Ask a model everything, and let its modules ask `forward` from now on.

    whole: whether all of it is here; of a shard's head nothing is asked, because only one rank has it.

    Whether the answers together make a right tree, target/make.py tries.  Raises UnsupportedModelError where its parts
    are not found.
    """
    # 1. Its parts: the text model, the stack of layers in it, the table of tokens.
    anatomy = find_anatomy(model)
    stack = anatomy.stack
    # 2. Its caches: of which kinds, and whether some hold states.  Kinds without a view (views.py) hold no tree.
    caches = make_prompt_cache(model)
    # 3. Its quantised layers: which of them a kernel may multiply.
    adapt_quantized(anatomy.text, forward)
    # 4. Its positions: whatever turns, embeds or scales by them takes those of the running forward.
    adapt_positions(stack, forward)
    # 5. Its attention: asks the layer's cache, which has the rows' mask and may know a kernel.  Masks that the model
    #    makes come from the caches as well (`make_mask`).
    for module in stack.modules():
        adapt_attention(module)
    # 6. Its recurrent layers: the closed form where it is written down, else every path by the layer's own code.
    replays = False
    if carries_states(caches):
        for module in stack.modules():
            adapt_gated_delta(module)
        replays = adapt_recurrent(stack, forward)
    # 7. Its head: one product, and a bound, where that gives the model's own logits; kernels can then serve it.
    own_head = OwnHead(anatomy)
    is_plain = not whole or _gives_the_same(anatomy, own_head)
    # 8. Its taps: layers that leave their outputs; a drafter says later which (forward.py: tap).
    return Asked(
        anatomy,
        len(caches),
        turns_by_length(stack),
        any(getattr(module, "is_sparse_attn", False) for module in stack.modules()),
        replays,
        None if is_plain else own_head,
    )


def _gives_the_same(anatomy: Anatomy, own_head: OwnHead) -> bool:
    """Whether the head alone gives the model's own logits, for loud random hidden states."""
    _, width = anatomy.embedding_shape
    kind = anatomy.embedding(mx.zeros((1, 1), mx.int32)).dtype
    hidden = (LOUD * mx.random.normal((1, 2, width), key=mx.random.key(0))).astype(kind)
    try:
        plain = anatomy.logits(hidden).astype(mx.float32)
        own = own_head(hidden).astype(mx.float32)
    except Exception:  # a model's own code, met with states that it did not make; or what is called its head is none
        return False
    return plain.shape == own.shape and bool(mx.abs(plain - own).max() <= SAME * mx.abs(own).max())
