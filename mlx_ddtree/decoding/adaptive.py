"""tree_budget='auto': every round chooses its kind, its block and its tree's size from what was measured.

budget/planner.py plans and learns; this file gives it the state's tokens, drafts and timings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

from mlx_ddtree.budget.lookup import Copy
from mlx_ddtree.budget.planner import Outcome, Planner, Proposal
from mlx_ddtree.decoding.clock import Clock
from mlx_ddtree.decoding.draft import StartedDraft, finish_draft, start_draft
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.round import Round, decode_round
from mlx_ddtree.decoding.sampling import is_greedy
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.tree import DraftTree


def adaptive_rounds(
    state: DecodeState, plan: RoundPlan, keep: Callable[[list[int]], int], clock: Clock
) -> Iterator[Round]:
    """Rounds without end; the caller stops when the text does."""
    drafting = _Drafting(state, plan, clock)
    done: Round | None = None
    while True:
        pause, prepared = drafting.prepare()  # the device drafts while the caller handles the last round
        if done is not None:
            yield done
        if pause:
            yield from drafting.timed(plain_rounds(state, plan, keep, clock, drafting.until_a_copy(pause)))
            done = None
        else:
            done = drafting.round(prepared, keep)


@dataclass
class _Prepared:
    """The next round as far as it can be known before its draft is there.

    proposal: complete where the round only copies.  seconds: that preparing took.
    """

    copy: Copy | None = None
    proposal: Proposal | None = None
    draft: StartedDraft | None = None
    seconds: float = 0.0


class _Drafting:
    """Connects a planner to one sequence."""

    def __init__(self, state: DecodeState, plan: RoundPlan, clock: Clock) -> None:
        self.state, self.plan, self.clock = state, plan, clock
        assert state.pair.profile is not None
        self.planner = Planner(
            state.pair.profile,
            greedy=is_greedy(plan.sampler),
            linear=plan.method == "dflash",
            block_size=plan.block_size,
        )

    def prepare(self) -> tuple[int, _Prepared]:
        """(tokens to decode plainly, or 0; the next round, its draft sent off)."""
        state, planner, prepared = self.state, self.planner, _Prepared()
        if state.root is None or state.near_tie:  # the text has ended; or the next token is decided alone
            return 0, prepared
        started = perf_counter()
        prepared.copy = planner.copy_after(state.token_ids)
        prepared.proposal = planner.without_draft(state.root, prepared.copy, state.context)
        if prepared.proposal is None:
            if pause := planner.pause(state.context):
                return pause, prepared
            with state.all_or_nothing(), self.clock("draft"):
                prepared.draft = start_draft(state, planner.next_block_size(state.context), planner.top_k)
        prepared.seconds = perf_counter() - started
        return 0, prepared

    def round(self, prepared: _Prepared, keep: Callable[[list[int]], int]) -> Round:
        """The round that was prepared, and what there is to learn from it."""
        context, before, started = self.state.context, dict(self.clock.seconds), perf_counter()
        done = decode_round(self.state, self.plan, lambda root: self.propose(root, prepared), keep, self.clock)
        proposal = prepared.proposal
        if proposal is None or done.alone:  # a near tie: nothing was proposed, or nothing of it was used
            return done
        seconds = perf_counter() - started + prepared.seconds
        verify, waited = (self.clock.seconds[stage] - before[stage] for stage in ("verify", "draft"))
        drafted = waited + prepared.seconds if prepared.draft is not None else 0.0
        self.planner.learn(proposal, Outcome(done.chosen, context, seconds, verify, drafted))
        return replace(done, kind=proposal.kind, expected=proposal.choice.expected)

    def propose(self, root: int, prepared: _Prepared) -> DraftTree:
        """The tree, once the draft is there."""
        if prepared.proposal is None:
            assert prepared.draft is not None
            with self.clock("draft"):
                candidates = finish_draft(prepared.draft, self.plan.sampler)
            with self.clock("tree"):
                prepared.proposal = self.planner.with_draft(root, candidates, prepared.copy, self.state.context)
        return prepared.proposal.tree

    def until_a_copy(self, pause: int) -> Callable[[int], bool]:
        """For plain_rounds: `pause` tokens, fewer if the text begins to repeat itself."""
        state, planner = self.state, self.planner

        def more(done: int) -> bool:
            if done >= pause:
                return False
            copy = planner.copy_after(state.token_ids)
            if planner.without_draft(-1, copy, state.context) is None:
                return True
            planner.interrupted(pause - done)
            return False

        return more

    def timed(self, steps: Iterator[Round]) -> Iterator[Round]:
        """Pass steps of plain decoding on, and take their time.

        A step runs while the caller handles the one before, so its time is that between two steps; unless
        the caller took most of it.  The first two and the last do not overlap with others and are left out.
        """
        seconds: float | None = None
        last_ready = resumed = perf_counter()
        for i, done in enumerate(steps):
            ready = perf_counter()
            if seconds is not None:
                self.planner.profile.cost.saw_step(self.state.context, seconds)
            overlapped = i > 1 and resumed - last_ready < (ready - last_ready) / 2
            seconds = ready - last_ready if overlapped else None
            yield done
            last_ready, resumed = ready, perf_counter()
