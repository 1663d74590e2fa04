"""Plain decoding (method 'ar'), one step ahead of the host as mlx-lm does it.

A tree of the root alone would give the same tokens; this loop only hides the host's work behind
the device's, because the next step needs the last token on the device and not its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import mlx.core as mx

from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.round import Round, decode_round
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.kernels.topk import top_margins
from mlx_ddtree.tree import DraftTree

_ONE_ROW = DraftTree.root(0)
FEATURES_HELD = 256
"""Tokens whose features may wait for the drafter's cache."""


class Step(NamedTuple):
    """What the target says: (1,) ids, (1, V) logits, (1,) margin between the two best if asked for."""

    chosen: mx.array
    logits: mx.array
    margin: mx.array | None


def plain_rounds(
    state: DecodeState,
    plan: RoundPlan,
    keep: Callable[[list[int]], int],
    clock: Clock,
    more: Callable[[int], bool] = lambda done: True,
) -> Iterator[Round]:
    """Rounds of one token each, at least one.

    more: given the number of tokens that are certain to come, whether another one shall.  It is asked one step
        ahead, before the last of them is known.

    Afterwards the last token is the root, as after any round.  On a cache that was filled by several rows
    at a time the run ends early at a near tie, which is left to decode_round (RoundPlan.parity).
    """
    if plan.processors:  # they read the tokens' values, so nothing can run ahead
        for done in count(1):
            yield decode_round(state, plan, DraftTree.root, keep, clock)
            if not more(done):
                return
    bound = 0.0 if state.exact == state.length else plan.parity.cache
    with state.all_or_nothing() as before:
        ahead: Step | None = _step(state, plan, mx.array([state.root]), bound)
        state.length, state.root = state.length + 1, None
    for done in count(1):
        assert ahead is not None
        chosen, logits, margin = ahead
        with clock("verify"), state.all_or_nothing() as after:
            goes_on = more(done)
            ahead = _step(state, plan, chosen, bound) if goes_on else None
            token = int(chosen.tolist()[0])  # type: ignore[index,arg-type]
            if margin is not None and float(margin.item()) < bound:  # type: ignore[arg-type]
                state.back_to_root(before, steps=2 if goes_on else 1)
                return
            state.token_ids.append(token)
            if not bound:
                state.mark_exact(after)
            before = after
            if goes_on:
                state.length += 1
            else:
                state.root = token
        keep([token])
        yield Round.of_one_token(token, logits)
        if not goes_on:
            return


def _step(state: DecodeState, plan: RoundPlan, token: mx.array, bound: float) -> Step:
    """Put `token` (1,) into the caches; what the target says after it."""
    target = state.pair.target
    hidden, features = target.forward(token[None], state.target_cache, state.held.gap)
    chosen, logits = choose_tokens(target.unembed(hidden[0]), _ONE_ROW, state.position + 1, [], plan.sampler)
    margin = top_margins(logits, chosen) if bound else None
    state.append_features(features)
    if len(state.features) >= FEATURES_HELD:
        state.extend_drafter()
    mx.async_eval(chosen, logits, margin, [c.state for c in state.drafter_cache if len(state.features) == 0])
    return Step(chosen, logits, margin)
