"""Plain decoding (method 'ar'), one step ahead of the host as mlx-lm does it.

A tree of the root alone would give the same tokens; this loop only hides the host's work behind
the device's, because the next step needs the last token on the device and not its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import mlx.core as mx

from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.round import Round, RoundPlan, decode_round
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree

_ONE_ROW = DraftTree.root(0)
FEATURES_HELD = 256
"""Tokens whose features may wait for the drafter's cache."""


def plain_rounds(
    state: DecodeState,
    plan: RoundPlan,
    keep: Callable[[list[int]], int],
    clock: Clock,
    number: int | None = None,
) -> Iterator[Round]:
    """`number` rounds of one token each, without end by default.

    Afterwards the last token is the root, as after any round.
    """
    if plan.processors:  # they read the tokens' values, so nothing can run ahead
        for _ in count() if number is None else range(number):
            yield decode_round(state, plan, DraftTree.root, keep, clock)
        return
    with state.all_or_nothing():
        ahead: tuple[mx.array, mx.array] | None = _step(state, plan, mx.array([state.root]))
        state.length, state.root = state.length + 1, None
    for done in count(1):
        assert ahead is not None
        chosen, logits = ahead
        with clock("verify"), state.all_or_nothing():
            more = done != number
            ahead = _step(state, plan, chosen) if more else None
            token = int(chosen.tolist()[0])  # type: ignore[index,arg-type]
            state.token_ids.append(token)
            if more:
                state.length += 1
            else:
                state.root = token
        keep([token])
        yield Round.of_one_token(token, logits)
        if not more:
            return


def _step(state: DecodeState, plan: RoundPlan, token: mx.array) -> tuple[mx.array, mx.array]:
    """Put `token` (1,) into the caches; what the target says after it: (1,) ids, (1, V) logits."""
    target = state.pair.target
    hidden, features = target.forward(token[None], state.target_cache)
    chosen, logits = choose_tokens(target.unembed(hidden[0]), _ONE_ROW, state.length + 1, [], plan.sampler)
    state.append_features(features)
    if len(state.features) >= FEATURES_HELD:
        state.extend_drafter()
    mx.async_eval(chosen, logits, [c.state for c in state.drafter_cache if len(state.features) == 0])
    return chosen, logits
