"""Plain decoding, one step ahead of the host as mlx-lm does it.

A tree of the root alone would give the same tokens; this loop only hides the host's work behind
the device's, because the next step needs the last token on the device and not its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import mlx.core as mx

from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.round import Clock, Round, decode_round
from mlx_ddtree.decoding.sampling import Choices, choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import Text
from mlx_ddtree.target.marks import Mark
from mlx_ddtree.tree import DraftTree

_ONE_ROW = DraftTree.root(0)
FEATURES_HELD = 256
"""Tokens whose features may wait for the drafter's cache."""


class _Step(NamedTuple):
    """A forward of one token that was sent off, and the choice after it.

    logits: (1, V).
    position: of the token that it decides.
    choices: None until the token before is known, where a grammar says what may follow that.
    """

    logits: mx.array
    position: int
    choices: Choices | None


def plain_rounds(
    state: DecodeState, plan: RoundPlan, text: Text, clock: Clock, more: Callable[[int], bool]
) -> Iterator[Round]:
    """Rounds of one token each, at least one; the first step is on its way when this returns.

    more: given the number of tokens that are certain to come, whether another one shall.  It is asked one step
        ahead, before the last of them is known.

    Afterwards the last token is the root, as after any round.  The run ends early where the caches are to be quantised,
    where the text reaches its length, and on a cache that was filled by several rows at a time at a near tie, which is
    left to decode_round (RoundPlan.parity).
    """
    if plan.processors:  # they read the tokens' values, so nothing can run ahead
        return _one_at_a_time(state, plan, text, clock, more)
    bound = 0.0 if state.exact == state.length else plan.parity.cache
    with state.all_or_nothing() as before, clock("verify"):
        first = _step(state, plan, mx.array([state.root]), bound)
        state.length += 1
        state.root = None
    return _one_ahead(state, plan, text, clock, more, first, before, bound)


def _one_ahead(
    state: DecodeState,
    plan: RoundPlan,
    text: Text,
    clock: Clock,
    more: Callable[[int], bool],
    first: _Step,
    before: Mark,
    bound: float,
) -> Iterator[Round]:
    """Rounds of which each has sent the next one's step off before its own token is known.

    first: the first one's step; before: a mark of the target's caches before it.
    """
    ahead: _Step | None = first
    for done in count(1):
        assert ahead is not None
        choices = ahead.choices
        if choices is None:
            with clock("verify"):
                choices = _masked_choice(state, plan, ahead, bound)
        with clock("verify"), state.all_or_nothing() as after:
            # 1. Send the next step off before this one's token is known.
            goes_on = text.remaining != 1 and not state.quantization_due and more(done)
            ahead = _step(state, plan, choices.token_ids, bound) if goes_on else None
            # 2. Wait for this one's token; a near tie takes both steps back.
            token = int(choices.token_ids.tolist()[0])  # type: ignore[index,arg-type]
            if choices.close is not None and bool(choices.close.item()):
                state.back_to_root(before, steps=2 if goes_on else 1)
                return
            # 3. The token is part of the text.
            state.token_ids.append(token)
            if not bound:
                state.mark_exact(after)
            before = after
            if goes_on:
                state.length += 1
            else:
                state.root = token
        text.keep([token])
        yield Round.of_one_token(token, choices.logits)
        if not goes_on:
            return


def _one_at_a_time(
    state: DecodeState, plan: RoundPlan, text: Text, clock: Clock, more: Callable[[int], bool]
) -> Iterator[Round]:
    """Rounds of the root alone."""
    for done in count(1):
        yield decode_round(state, plan, DraftTree.root, text.keep, clock)
        if not more(done) or state.quantization_due:
            return


def _step(state: DecodeState, plan: RoundPlan, token: mx.array, bound: float) -> _Step:
    """Put `token` (1,) into the caches; what the target says after it, sent off and not awaited."""
    target = state.pair.target
    hidden, features = target.forward(token[None], state.caches.target, state.coverage.gap)
    logits = target.unembed(hidden[0])
    position = state.position + 1
    choices = None
    if state.walk is None:
        choices = choose_tokens(logits, _ONE_ROW, position, [], plan.sampler, bound=bound)
    state.append_features(features)
    if len(state.features) >= FEATURES_HELD:
        state.extend_drafter()
    drafter_state = [] if state.features else [cache.state for cache in state.caches.drafter]
    mx.async_eval(logits if choices is None else choices, drafter_state)
    return _Step(logits, position, choices)


def _masked_choice(state: DecodeState, plan: RoundPlan, step: _Step, bound: float) -> Choices:
    """What the target says among the tokens that the grammar allows, sent off and not awaited.

    The host finds these while the device computes the step's logits.
    """
    assert state.walk is not None
    state.walk.stand(state.token_ids)
    allowed = state.walk.place().words[None]
    choices = choose_tokens(step.logits, _ONE_ROW, step.position, [], plan.sampler, bound=bound, allowed=allowed)
    mx.async_eval(choices)
    return choices
