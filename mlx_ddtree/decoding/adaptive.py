"""tree_budget='auto': every round chooses its kind, its block and its tree's size from what was measured.

tree/planner.py plans and learns; this file gives it the state's tokens, drafts and timings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.draft import draft
from mlx_ddtree.decoding.measure import profile_of
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.round import Round, RoundPlan, decode_round
from mlx_ddtree.decoding.sampling import is_greedy
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree
from mlx_ddtree.tree.planner import Outcome, Planner, Proposal


def adaptive_rounds(
    state: DecodeState, plan: RoundPlan, keep: Callable[[list[int]], int], clock: Clock
) -> Iterator[Round]:
    """Rounds without end; the caller stops when the text does."""
    drafting = _Drafting(state, plan, clock)
    try:
        while True:
            if not state.near_tie and (pause := drafting.planner.pause(state.length)):
                steps = plain_rounds(state, plan, keep, clock, pause)
                yield from drafting.timed(steps, pause)
            else:
                yield drafting.round(keep)
    finally:
        drafting.planner.profile.close()


class _Drafting:
    """Connects a planner to one sequence."""

    def __init__(self, state: DecodeState, plan: RoundPlan, clock: Clock) -> None:
        self.state, self.plan, self.clock = state, plan, clock
        self.planner = Planner(
            profile_of(state.pair),
            greedy=is_greedy(plan.sampler),
            linear=plan.method == "dflash",
            block_size=plan.block_size,
        )
        self.proposal: Proposal | None = None

    def round(self, keep: Callable[[list[int]], int]) -> Round:
        """A round by proposal, and what there is to learn from it."""
        context, before, started = self.state.length, dict(self.clock.seconds), perf_counter()
        self.proposal = None
        done = decode_round(self.state, self.plan, self.propose, keep, self.clock)
        seconds, spent = perf_counter() - started, self.clock.seconds
        proposal: Proposal | None = self.proposal
        if proposal is None or done.alone:  # a near tie: nothing was proposed, or nothing of it was used
            return done
        verify, drafting = (spent[stage] - before[stage] for stage in ("verify", "draft"))
        self.planner.learn(proposal, Outcome(done.chosen, context, seconds, verify, drafting))
        return replace(done, kind=proposal.kind, expected=proposal.choice.expected)

    def propose(self, root: int) -> DraftTree:
        planner, context = self.planner, self.state.length
        copy = planner.copy_after(self.state.token_ids)
        self.proposal = planner.without_draft(root, copy, context)
        if self.proposal is None:
            with self.clock("draft"):
                block_size = planner.next_block_size(context)
                candidates = draft(self.state, block_size, planner.top_k, self.plan.sampler)
            with self.clock("tree"):
                self.proposal = planner.with_draft(root, candidates, copy, context)
        return self.proposal.tree

    def timed(self, steps: Iterator[Round], count: int) -> Iterator[Round]:
        """Pass `count` steps of plain decoding on, and take their time.

        A step runs while the caller handles the one before, so its time is that between two steps; unless
        the caller took most of it.  The first and the last do not overlap with another and are left out.
        """
        last_ready = resumed = perf_counter()
        for i, done in enumerate(steps):
            ready = perf_counter()
            if 1 < i < count - 1 and resumed - last_ready < (ready - last_ready) / 2:
                self.planner.profile.cost.saw_step(self.state.length, ready - last_ready)
            yield done
            last_ready, resumed = ready, perf_counter()
