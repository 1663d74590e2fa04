"""Verify: one forward of the target over the whole tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import LogitsProcessor

from mlx_ddtree.decoding.sampling import MlxLmSampler, Sampler, choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree

NODE_BUCKETS = (*range(9), 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Verification:
    """The target's answer to a tree of N nodes, root included; its KV rows await the commit.

    chosen: N token ids, what the target says after each node.
    logits: (N, V), evaluated.
    features: (1, rows, taps * D), or None without taps.
    """

    chosen: Sequence[int]
    logits: mx.array
    features: mx.array | None


def padded_nodes(nodes: int, budget: int) -> int:
    """How many nodes to verify a tree of `nodes` with, so that shapes recur from round to round.

    A full tree has `budget` nodes and is never padded; smaller ones go up to the next bucket.
    """
    return min(next(b for b in NODE_BUCKETS if b >= nodes), max(budget, nodes))


def verify(
    state: DecodeState,
    tree: DraftTree,
    budget: int,
    sampler: Sampler | MlxLmSampler,
    processors: Sequence[LogitsProcessor] = (),
) -> Verification:
    """Run the target over the tree and let it choose a token after every node.

    Only the tree's own rows go through the LM head, padding does not.  Chains, the root alone
    among them, take the plain causal path.
    """
    target, nodes = state.pair.target, len(tree)
    if tree.is_chain:
        hidden, features = target.forward(mx.array(tree.token_ids)[None], state.target_cache)
    else:
        rows = 1 + padded_nodes(nodes - 1, budget)
        token_ids = np.full(rows, tree.token_ids[0])
        token_ids[:nodes] = tree.token_ids
        hidden, features = target.forward_tree(mx.array(token_ids)[None], tree, state.length, state.target_cache)
    logits = target.unembed(hidden[0, :nodes])
    chosen, logits = choose_tokens(logits, tree, state.length + 1, state.token_ids, sampler, processors)
    mx.eval(chosen, logits)  # the round's second and last wait: the walk needs the target's choices
    return Verification(chosen.tolist(), logits, features)  # type: ignore[arg-type]
