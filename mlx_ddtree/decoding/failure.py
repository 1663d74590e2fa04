"""A GPU that fails in the middle of a text: what it may have spoilt is computed again, without kernels of ours.

MLX reports that a command buffer has failed when somebody waits for something in it.  The buffers since the last wait
that went well held the commit of the round before and a draft, so their results are worth nothing either.  What a
round's answer was computed from was there before it: once the host has read that answer, the caches as they stood then
are good (`DecodeState.standing`).  The tokens behind them are known, and go in again one at a time, as plainly.
"""

from __future__ import annotations

import logging

import mlx.core as mx

from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.choice import NO_KERNELS
from mlx_ddtree.kernels.guard import first_line, gpu_failed
from mlx_ddtree.target.views import waits_unevaluated

_REPORTS = 4
"""How often MLX may report one failure: its stream has it, and so has every event behind it."""


def can_go_on(state: DecodeState, error: Exception) -> bool:
    """Whether `compute_again` may help: the GPU failed while kernels of ours were in use, and caches are known to have
    been good.

    Not for a target of several ranks: the others would wait for a rank that goes back alone.
    """
    target = state.pair.target
    if not gpu_failed(error) or target.kernels == NO_KERNELS or target.rank_traffic is not None:
        return False
    if state.proven is None or not waits_unevaluated(state.caches.target):
        return False
    return state.root is not None or state.length > state.proven[1]


def compute_again(state: DecodeState, error: Exception) -> None:
    """Bring both caches up to `state.token_ids` again, by MLX's operations, which this target uses from now on.

    What MLX raises meanwhile, as at a second failure, is passed on.
    """
    logging.getLogger(__name__).warning(
        "the GPU failed while kernels of this package were in use; the text goes on without them: %s", first_line(error)
    )
    target, cache = state.pair.target, state.caches.target
    target.kernels = NO_KERNELS
    _hear_reports()
    assert state.proven is not None
    marked, proven = state.proven
    # 1. The last token is the root, as after any round.
    spoilt = state.length - proven
    count = spoilt if state.root is not None else spoilt - 1
    state.root = state.token_ids[-1]
    # 2. Back to the good caches.  The drafter has a row for each of the target's, in its cache or waiting for it.
    target.rewind(cache, marked)
    _cut_drafter(state, spoilt)
    state.length = proven
    # 3. What is known goes in again.
    for token in state.token_ids[len(state.token_ids) - 1 - count : -1]:
        hidden, features = target.forward(mx.array([[token]]), cache, state.coverage.gap)
        state.append_features(features)
        state.length += 1
        mx.eval(hidden, [layer_cache.state for layer_cache in cache], state.features[-1:])
    if state.exact >= proven:
        state.mark_exact()


def _hear_reports() -> None:
    """Wait for all that was sent off, and let MLX say what there is to say: a report is given once."""
    for _ in range(_REPORTS):
        try:
            mx.synchronize()
        except RuntimeError:
            continue
        return


def _cut_drafter(state: DecodeState, rows: int) -> None:
    """Take the last rows from what waits for the drafter, and from its caches what does not wait any more."""
    while rows and state.features:
        last = state.features.pop()
        kept = last.shape[1] - rows
        rows = max(-kept, 0)
        if kept > 0:
            state.features.append(last[:, :kept])
    for layer_cache in state.caches.drafter:
        layer_cache.offset -= rows
