"""The target's choice at every tree node: argmax, or a draw that depends on the position alone.

A choice is `close` where a rounding of the logits by no more than a bound could have made it another one
(decoding/parity.py says what happens then).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import LogitsProcessor
from numpy.typing import NDArray

from mlx_ddtree.decoding.sampler import MlxLmSampler, Sampler, is_greedy, is_repeatable, log_probs_of
from mlx_ddtree.kernels.token_mask import masked
from mlx_ddtree.kernels.topk import top_margins
from mlx_ddtree.tree import DraftTree


class Choices(NamedTuple):
    """What the target says after every node of a tree; lazy.

    token_ids: (N,).
    logits: (N, V), processed.
    close: (N,) bool, where rounding could have made it another token; None where nobody asked.
    """

    token_ids: mx.array
    logits: mx.array
    close: mx.array | None


def choose_tokens(
    logits: mx.array,
    tree: DraftTree,
    start: int,
    context: Sequence[int],
    sampler: Sampler | MlxLmSampler,
    processors: Sequence[LogitsProcessor] = (),
    bound: float = 0.0,
    allowed: NDArray[np.uint32] | None = None,
) -> Choices:
    """The target's choice after every node of the tree.

    logits: (N, V).  start: absolute position of the token that follows the root.
    context: the token ids up to the root, root included; processors see each node's own path.
    bound: how far rounding can move two logits of a row against each other (ParityBounds); 0 does not ask.
    allowed: (N, W) the tokens that a grammar allows after each node, as sets (kernels/token_mask.py); None: all.
    """
    processed = _processed(logits, tree, context, processors, allowed)
    asked = bound > 0 and is_repeatable(sampler)
    if asked and isinstance(sampler, Sampler) and sampler.has_simple_edges and not processors:
        chosen, close = sampler.choose_and_doubt(processed, tree.depths.tolist(), start, bound)
        return Choices(chosen, processed, close)
    chosen = _draw(processed, tree, start, sampler)
    if not asked:
        return Choices(chosen, processed, None)
    if is_greedy(sampler) and not processors:
        return Choices(chosen, processed, top_margins(processed, chosen) < bound)
    # Processors and XTC: the choice against itself at the worst rounding, its own logit lower, all others higher.  That
    # is no proof, because XTC drops the better one of two tokens whose logits cross.  What processors make of a logit
    # may depend on its sign, so there both sides move by the whole bound.
    lowered = mx.put_along_axis(mx.zeros_like(logits), chosen[:, None], mx.array(-bound, logits.dtype), axis=-1)
    moved = logits + lowered if not processors else logits + bound + 2 * lowered
    moved = _processed(moved, tree, context, processors, allowed)
    close = _draw(moved, tree, start, sampler, bound) != chosen
    if isinstance(sampler, Sampler) and sampler.filters and sampler.temp > 0:
        close |= _draw(moved, tree, start, sampler, -bound) != chosen
    return Choices(chosen, processed, close)


def _draw(
    logits: mx.array, tree: DraftTree, start: int, sampler: Sampler | MlxLmSampler, slack: float = 0.0
) -> mx.array:
    """(N,) token ids of processed logits (N, V)."""
    if is_greedy(sampler):
        return mx.argmax(_comparable(logits), axis=-1)
    if isinstance(sampler, Sampler):
        return sampler.choose(logits, tree.depths.tolist(), start, slack)
    # A foreign sampler wants log-probabilities, and may draw once for a whole call: every node gets a call of its own.
    log_probs = log_probs_of(logits)
    return mx.concatenate([sampler(log_probs[node : node + 1]) for node in range(len(tree))])


def _comparable(logits: mx.array) -> mx.array:
    """What mlx-lm takes the argmax of: 16-bit log-probabilities, whose rounding makes ties of its own.

    In fp32 the subtraction cannot reorder logits that differ by more than rounding, and is left out.
    """
    if logits.dtype == mx.float32:
        return logits
    return log_probs_of(logits)


def _processed(
    logits: mx.array,
    tree: DraftTree,
    context: Sequence[int],
    processors: Sequence[LogitsProcessor],
    allowed: NDArray[np.uint32] | None,
) -> mx.array:
    """(N, V) logits after the processors, each of which sees the context and the node's own path.

    What a grammar does not allow is cut last, so that no processor can let it through.
    """
    if not processors:
        return logits if allowed is None else masked(logits, allowed)
    rows = []
    for node in range(len(tree)):
        path = tree.token_ids[tree.path_to(node)[1:]].tolist()
        token_ids = mx.array([*context, *path])
        row = logits[node : node + 1]
        for processor in processors:
            row = processor(token_ids, row)
        rows.append(row)
    processed = mx.concatenate(rows)
    return processed if allowed is None else masked(processed, allowed)
