"""The parts of a round as functions that can be called again and again, for timing: each is undone as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from statistics import median

import numpy as np

from mlx_ddtree.budget.profile import ParityBounds
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.draft import UnreadChain, can_stay_unread, draft, start_draft
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import EndlessText
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning import stopwatch
from mlx_ddtree.tuning.sample_trees import bushy_tree, chain_of
from mlx_ddtree.tuning.stopwatch import fastest

PLAIN_STEPS = 12
"""Steps of plain decoding of which the median is taken: they run ahead of the host, so single ones say little."""


def filled(pair: Pair, length: int) -> DecodeState:
    """A state after `length` random tokens, with its own caches."""
    state = DecodeState(pair, make_prompt_cache(pair))
    tokens = np.random.default_rng(0).integers(0, pair.target.args.vocab_size, length + 1)
    prefill(state, tokens.tolist(), 512)
    return state


def timed(once: Callable[[], None]) -> float:
    """Seconds of the shortest of a few calls."""
    return fastest({"once": once})["once"]


def measure_unread(state: DecodeState, block_size: int) -> float:
    """Seconds of a draft and the verification of its chain where the host reads nothing in between, as a share of those
    where it does; 1 for drafters whose drafts it must read."""
    plan = _plan_of_costs()
    if not can_stay_unread(state.pair, plan):
        return 1.0
    assert state.root is not None
    root = state.root
    redraft = draft_once(state, block_size)
    reset = _before_draft(state)

    def read() -> None:
        redraft()
        verify_once(state, block_size, chain=True)()

    def unread() -> None:
        with reset():
            before = state.pair.target.mark(state.caches.target)
            verify(state, UnreadChain(root, start_draft(state, block_size, 1)), plan)
            state.pair.target.rewind(state.caches.target, before)

    seconds = fastest({"read": read, "unread": unread})
    return seconds["unread"] / seconds["read"]


def _before_draft(state: DecodeState) -> Callable[[], AbstractContextManager[None]]:
    """What makes a state that of a round that emitted three tokens, and forgets the draft again."""
    drafter = state.pair.drafter
    assert drafter is not None
    features = drafter.no_features(3)

    @contextmanager
    def reset() -> Iterator[None]:
        length = state.drafted_length
        state.features = [features]
        yield
        for cache in state.caches.drafter:
            cache.offset = length

    return reset


def draft_once(state: DecodeState, block_size: int) -> Callable[[], None]:
    """Draft after a round that emitted three tokens."""
    reset = _before_draft(state)

    def once() -> None:
        with reset():
            draft(state, block_size, 16)

    return once


def verify_once(state: DecodeState, rows: int, chain: bool = False) -> Callable[[], None]:
    """Verify a bushy tree, or a chain."""
    make = chain_of if chain else bushy_tree
    tree = make(rows, state.root or 0)
    plan = _plan_of_costs()
    target = state.pair.target
    before = target.mark(state.caches.target)

    def once() -> None:
        verify(state, tree, plan)
        target.rewind(state.caches.target, before)

    return once


def _plan_of_costs() -> RoundPlan:
    """Greedy rounds that ask for near ties, as those of users do."""
    return RoundPlan("ddtree", None, "auto", Sampler(), parity=ParityBounds(1e-9))


def plain_step(state: DecodeState, steps: int = PLAIN_STEPS) -> float:
    """Seconds of a step in a run of plain decoding, undone again; the run's first step waits and is left out."""
    length = state.length
    root = state.root
    tokens = len(state.token_ids)
    before = state.pair.target.mark(state.caches.target)
    plan, times = RoundPlan("ar", 1, 0, Sampler()), []
    start = stopwatch.now()
    for _ in plain_rounds(state, plan, EndlessText(), Clock(), lambda done: done < steps):
        times.append(stopwatch.now() - start)
        start = stopwatch.now()
    state.pair.target.rewind(state.caches.target, before)
    state.length = length
    state.root = root
    state.features = []
    del state.token_ids[tokens:]
    return median(times[1:])
