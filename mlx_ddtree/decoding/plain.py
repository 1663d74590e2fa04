"""Plain decoding (method 'ar'), one step ahead of the host as mlx-lm does it.

A tree of the root alone would give the same tokens; this loop only hides the host's work behind
the device's, because the next step needs the last token on the device and not its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx

from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.round import Round, RoundPlan, rounds
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree

_ONE_ROW = DraftTree.root(0)


def plain_rounds(
    state: DecodeState, plan: RoundPlan, keep: Callable[[list[int]], int], clock: Clock
) -> Iterator[Round]:
    """Rounds of one token each, without end; the caller stops when the text does."""
    if plan.processors:  # they read the tokens' values, so nothing can run ahead
        yield from rounds(state, plan, keep, clock)
    with state.all_or_nothing():
        chosen, logits = _step(state, plan, mx.array([state.root]))
        state.length, state.root = state.length + 1, None
    while True:
        with clock("verify"), state.all_or_nothing():
            ahead = _step(state, plan, chosen)
            token = int(chosen.tolist()[0])  # type: ignore[index,arg-type]
            state.length += 1
            state.token_ids.append(token)
        keep([token])
        yield Round([token], logits, accepted=0, nodes=0, depth=0)
        chosen, logits = ahead


def _step(state: DecodeState, plan: RoundPlan, token: mx.array) -> tuple[mx.array, mx.array]:
    """Put `token` (1,) into the caches; what the target says after it: (1,) ids, (1, V) logits."""
    target = state.pair.target
    hidden, features = target.forward(token[None], state.target_cache)
    chosen, logits = choose_tokens(target.unembed(hidden[0]), _ONE_ROW, state.length + 1, [], plan.sampler)
    state.append_features(features)
    state.extend_drafter()
    mx.async_eval(chosen, logits, [c.state for c in state.drafter_cache])
    return chosen, logits
