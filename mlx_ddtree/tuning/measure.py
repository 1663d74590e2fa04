"""Measure, once for a pair and a machine, what rounds cost and how forwards of several rows round."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from tqdm import tqdm

from mlx_ddtree.budget.cost import ROWS, CostTable, never_falling
from mlx_ddtree.budget.planner import LONGEST_COPY
from mlx_ddtree.budget.profile import ParityBounds, Profile
from mlx_ddtree.decoding.context import make_prompt_cache
from mlx_ddtree.decoding.draft import UnreadChain, can_stay_unread, draft, start_draft
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.prefill import prefill
from mlx_ddtree.decoding.round import Clock
from mlx_ddtree.decoding.sampling import Sampler
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import verify
from mlx_ddtree.files.lock import in_turn
from mlx_ddtree.kernels.registry import kernel_choice
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning import store
from mlx_ddtree.tuning.choose import Finding, choose_kernels, mode_of
from mlx_ddtree.tuning.identity import profile_path
from mlx_ddtree.tuning.reading import ReadingCheck, check_reading, use_reading
from mlx_ddtree.tuning.rounding import measure_parity
from mlx_ddtree.tuning.sample_trees import bushy_tree, chain_of
from mlx_ddtree.tuning.stopwatch import fastest
from mlx_ddtree.tuning.timings import Timings

CONTEXTS = (64, 1024)
BLOCKS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
PLAIN_STEPS = 12
"""Steps of plain decoding of which the median is taken: they run ahead of the host, so single ones say little."""
TYPICAL_BLOCK = 8
"""The block of which it is measured what reading a draft costs."""
SUSPICIOUS = 1.25
"""A size that takes so many times what a larger one takes was disturbed, and is timed again."""
SECOND_LOOKS = 3
LOCK = "measuring.lock"
LONGEST_WAIT = 900.0
"""Seconds to wait for another process that measures."""


def profile_of(pair: Pair) -> Profile:
    """The pair's profile: in memory, from disk, or measured now (a few seconds, with a bar on a terminal)."""
    if pair.profile is None:
        assert pair.drafter is not None
        mode = mode_of(pair.kernels)
        path, block_size = profile_path(pair, mode), pair.drafter.config.block_size
        pair.profile = (store.load(path, block_size) if path else None) or _measured_in_turn(pair, mode, path)
        _read_rightly(pair, pair.profile)
        pair.target.kernels = kernel_choice(pair.profile.kernels)
        store.save(pair.profile)
    return pair.profile


def _read_rightly(pair: Pair, profile: Profile) -> None:
    """Look once whether the drafter's file was read rightly, and draft by the reading that was found best."""
    if profile.reading is None:
        check = check_reading(pair)
        profile.reading = None if check is None else check.as_dict()
    if profile.reading is not None:
        use_reading(pair, ReadingCheck.from_dict(profile.reading))


def _measured_in_turn(pair: Pair, mode: str, path: Path | None) -> Profile:
    """Measure while no other process does, of whatever pair: they would time each other.

    Where another one has just measured this very pair, its profile is taken.
    """
    assert pair.drafter is not None
    if path is None:
        return _measured(pair, mode, path)
    waited = []

    def waiting() -> None:
        waited.append(True)
        sys.stderr.write("another process is measuring on this machine; waiting for its end\n")

    with in_turn(path.parent / LOCK, LONGEST_WAIT, waiting):
        profile = store.load(path, pair.drafter.config.block_size) if waited else None
        if profile is None:
            profile = _measured(pair, mode, path)
            store.save(profile)
        return profile


def _measured(pair: Pair, mode: str, path: Path | None) -> Profile:
    """Kernels first: what rounds cost, and how they round, depends on them."""
    assert pair.drafter is not None
    sys.stderr.write("measuring this pair on this machine, once: what rounds cost and how they round\n")
    kernels: dict[int, list[str]] = {}
    findings: list[Finding] = []
    if mode != "off":
        kernels, findings = choose_kernels(
            _filled(pair, min(CONTEXTS[-1], (pair.target.max_context or 2048) // 2)), mode
        )
    pair.target.kernels = kernel_choice(kernels)
    timings = Timings(None if path is None else path.with_suffix(".part.json"))
    try:
        costs = measure_costs(pair, timings)
        bounds = measure_parity(pair)
    except BaseException:
        timings.keep()
        raise
    timings.forget()
    profile = Profile(costs, bounds, pair.drafter.config.block_size, path, kernels)
    profile.findings = [asdict(finding) for finding in findings]
    return profile


def measure_costs(pair: Pair, timings: Timings | None = None) -> CostTable:
    """Time the very functions that a round calls, on random text; timings: what is known already."""
    known = timings or Timings(None)
    drafter = pair.drafter
    assert drafter is not None
    limit = pair.target.max_context or max(CONTEXTS)
    contexts = [n for n in CONTEXTS if n + max(ROWS) <= limit] or [max(limit // 4, 1)]
    blocks = sorted({b for b in (*BLOCKS, drafter.config.block_size) if b <= drafter.config.block_size})
    states = [_filled(pair, n) for n in contexts]
    with tqdm(total=len(ROWS), desc="measuring this pair, once", leave=False, disable=None) as bar:
        for rows in ROWS[:8]:  # the first seconds of a process are slow: threads start, clocks rise
            _verify_once(states[0], rows)()
        draft_seconds = {}
        for block in blocks:
            draft_seconds[block] = known.of(f"draft {block}", partial(_timed, _draft_once(states[0], block)))
        seconds: dict[bool, list[list[float]]] = {chain: [[] for _ in states] for chain in (False, True)}
        for rows in ROWS:
            if rows + contexts[-1] > limit or _cannot_win(seconds[False][0]):
                break
            for chain in (True, False):
                for row, state in zip(seconds[chain], states, strict=True):
                    name = f"{'chain' if chain else 'tree'} {rows} behind {state.length}"
                    row.append(known.of(name, partial(_timed, _verify_once(state, rows, chain))))
            bar.update()
        measured = list(ROWS[: len(seconds[False][0])])
        for chain, table in seconds.items():
            for row, state in zip(table, states, strict=True):
                _look_again(row, [_verify_once(state, rows, chain) for rows in measured])
    plain = [known.of(f"plain behind {state.length}", partial(plain_step, state)) for state in states]
    block = max(b for b in blocks if b <= TYPICAL_BLOCK)
    unread = known.of("unread", partial(measure_unread, states[0], block))
    verify_seconds = [never_falling(row) for row in seconds[False]]
    chain_seconds = [never_falling(row) for row in seconds[True]]
    return CostTable(measured, contexts, verify_seconds, chain_seconds, plain, draft_seconds, unread=unread)


def _cannot_win(seconds: list[float]) -> bool:
    """Whether the last two sizes both take longer than plain decoding of all that a round can emit; one alone may have
    been disturbed."""
    longest = LONGEST_COPY // 2
    return len(seconds) > 2 and min(seconds[-2:]) > longest * seconds[0]


def _look_again(seconds: list[float], runs: Sequence[Callable[[], None]]) -> None:
    """Time sizes again that take much longer than a larger one does, in place; the shorter timing counts."""
    for _ in range(SECOND_LOOKS):
        least = never_falling(seconds)
        doubtful = [i for i, taken in enumerate(seconds) if taken > SUSPICIOUS * least[i]]
        if not doubtful:
            return
        for i in doubtful:
            seconds[i] = min(seconds[i], _timed(runs[i]))


def _filled(pair: Pair, length: int) -> DecodeState:
    """A state after `length` random tokens, with its own caches."""
    assert pair.drafter is not None
    state = DecodeState(pair, make_prompt_cache(pair))
    tokens = np.random.default_rng(0).integers(0, pair.target.args.vocab_size, length + 1)
    prefill(state, tokens.tolist(), 512)
    return state


def _timed(once: Callable[[], None]) -> float:
    return fastest({"once": once})["once"]


def measure_unread(state: DecodeState, block_size: int) -> float:
    """Seconds of a draft and the verification of its chain where the host reads nothing in between, as a share of those
    where it does; 1 for drafters whose drafts it must read."""
    plan = _plan_of_costs()
    if not can_stay_unread(state.pair, plan):
        return 1.0
    assert state.root is not None
    root = state.root
    redraft = _draft_once(state, block_size)
    reset = _before_draft(state)

    def read() -> None:
        redraft()
        _verify_once(state, block_size, chain=True)()

    def unread() -> None:
        with reset():
            before = state.pair.target.mark(state.target_cache)
            verify(state, UnreadChain(root, start_draft(state, block_size, 1)), plan)
            state.pair.target.rewind(state.target_cache, before)

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
        for cache in state.drafter_cache:
            cache.offset = length

    return reset


def _draft_once(state: DecodeState, block_size: int) -> Callable[[], None]:
    """A draft after a round that emitted three tokens, undone again."""
    reset = _before_draft(state)

    def once() -> None:
        with reset():
            draft(state, block_size, 16)

    return once


def _verify_once(state: DecodeState, rows: int, chain: bool = False) -> Callable[[], None]:
    """A verification of a bushy tree, or of a chain, undone again."""
    make = chain_of if chain else bushy_tree
    tree = make(rows, state.root or 0)
    plan = _plan_of_costs()
    target = state.pair.target
    before = target.mark(state.target_cache)

    def once() -> None:
        verify(state, tree, plan)
        target.rewind(state.target_cache, before)

    return once


def _plan_of_costs() -> RoundPlan:
    """Greedy rounds that ask for near ties, as those of users do."""
    return RoundPlan("ddtree", None, "auto", Sampler(), parity=ParityBounds(1e-9))


def plain_step(state: DecodeState) -> float:
    """Seconds of a step in a run of plain decoding, undone again; the run's first step waits and is left out."""
    length = state.length
    root = state.root
    tokens = len(state.token_ids)
    before = state.pair.target.mark(state.target_cache)
    plan, times = RoundPlan("ar", 1, 0, Sampler()), []
    start = perf_counter()
    for _ in plain_rounds(state, plan, len, Clock(), lambda done: done < PLAIN_STEPS):
        times.append(perf_counter() - start)
        start = perf_counter()
    state.pair.target.rewind(state.target_cache, before)
    state.length = length
    state.root = root
    state.features = []
    del state.token_ids[tokens:]
    return median(times[1:])
