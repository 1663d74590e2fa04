"""tree_budget='auto': every round chooses its kind, its block and its tree's size from what was measured.

budget/planner.py plans and learns; this file gives it the state's tokens, drafts and timings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

from mlx_ddtree.budget.graphs import Graph
from mlx_ddtree.budget.planner import Planner
from mlx_ddtree.budget.proposal import Outcome, Proposal
from mlx_ddtree.budget.recall import Recalled
from mlx_ddtree.decoding.draft import StartedDraft, UnreadChain, can_stay_unread, finish_draft, start_draft
from mlx_ddtree.decoding.plain import plain_rounds
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.propose import NoProposer, profile_for, within_grammar
from mlx_ddtree.decoding.round import Clock, Round
from mlx_ddtree.decoding.sampler import is_greedy
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import Text
from mlx_ddtree.decoding.verify import AheadBuilder, BuiltAhead, Proposed


@dataclass
class _Prepared:
    """The next round as far as it can be known before its draft is there.

    context: tokens in the cache before the round.
    copy: what stood behind the text's last tokens earlier.
    proposal: complete where the round only copies.
    draft: on its way where the round drafts.
    unread: whether its best path is verified before anyone has read it.
    built: the graph of its verification, made while the device drafts.
    seconds: that preparing took.
    spent: the clock's seconds by stage when its tree was asked for; what the drafter reads of a prompt was before.
    """

    context: int = 0
    copy: Recalled | None = None
    proposal: Proposal | None = None
    draft: StartedDraft | None = None
    unread: bool = False
    built: BuiltAhead | None = None
    seconds: float = 0.0
    spent: dict[str, float] | None = None


class AdaptiveProposer(NoProposer):
    """Connects a planner to one sequence."""

    def __init__(self, state: DecodeState, plan: RoundPlan, text: Text, clock: Clock) -> None:
        super().__init__(state, plan, text, clock)
        profile = profile_for(state)
        assert profile is not None
        self.planner = Planner(
            profile,
            greedy=is_greedy(plan.sampler),
            linear=plan.method == "dflash",
            block_size=plan.block_size,
            memory=plan.memory,
            constrain=None if state.walk is None else partial(within_grammar, state),
        )
        self.ahead = AheadBuilder(state)
        self.prepared = _Prepared()
        self._to_study: tuple[Proposal, Outcome] | None = None

    def prepare(self) -> Iterator[Round] | None:
        """Send off the next draft, or the first step of plain decoding before it; study the last round meanwhile."""
        self.prepared = _Prepared(self.state.context)
        plain = self._begin() if self.may_begin() else None
        if self._to_study is not None:
            self.planner.study(*self._to_study)
            self._to_study = None
        return plain

    def _begin(self) -> Iterator[Round] | None:
        """Decide on the next round's kind and send off what it begins with."""
        state = self.state
        planner = self.planner
        prepared = self.prepared
        assert state.root is not None
        started = perf_counter()
        prepared.copy = planner.copy_after(state.token_ids)
        prepared.proposal = planner.without_draft(state.root, prepared.copy, state.context)
        if prepared.proposal is None:
            pause = planner.pause(state.context)
            if pause:
                return self._plainly(pause)
            self._start_draft(prepared)
        prepared.seconds = perf_counter() - started
        return None

    def _start_draft(self, prepared: _Prepared) -> None:
        """Send the drafter off for a tree, or for a chain that need not be read."""
        planner = self.planner
        block_size = 0
        if self.state.walk is None and can_stay_unread(self.state.pair, self.plan):
            block_size = planner.unread_block(prepared.context)
        prepared.unread = block_size > 0
        with self.state.all_or_nothing(), self.clock("draft"):
            if prepared.unread:
                prepared.draft = start_draft(self.state, block_size, 1)
            else:
                prepared.draft = start_draft(self.state, planner.next_block_size(prepared.context), planner.top_k)

    def propose(self, root: int) -> Proposed:
        """The tree to verify behind this root, once the draft is there; or a chain that is verified unread."""
        prepared = self.prepared
        prepared.spent = dict(self.clock.seconds)
        if prepared.unread:
            assert prepared.draft is not None
            chain = UnreadChain(root, prepared.draft)
            prepared.proposal = self.planner.without_reading(chain.shape, prepared.context)
            return chain
        if prepared.proposal is not None:
            return prepared.proposal.tree
        assert prepared.draft is not None
        with self.clock("draft"):
            graph = self._build_ahead(prepared)
            candidates = finish_draft(prepared.draft)
        with self.clock("tree"):
            proposal = self.planner.with_draft(root, candidates, prepared.copy, prepared.context, graph)
            prepared.proposal = proposal
            if prepared.built is None:
                return proposal.tree
            if proposal.graph is not None:
                return prepared.built.for_tree(proposal.tree)
            prepared.built.give_up()
            return proposal.tree

    def _build_ahead(self, prepared: _Prepared) -> Graph | None:
        """Make the graph that the next tree is likely to want, while the device drafts."""
        graph = self.planner.next_graph()
        if graph is None:
            return None
        started = perf_counter()
        prepared.built = self.ahead.build(graph.rows, graph.chain)
        if prepared.built is None:
            return None
        return graph._replace(seconds=perf_counter() - started)

    def learn(self, done: Round, seconds: float) -> Round:
        """Take note of how the proposed round went; the round with what was expected of it."""
        prepared = self.prepared
        proposal = prepared.proposal
        if proposal is None or done.alone:  # a near tie: nothing was proposed, or nothing of it was used
            return done
        assert prepared.spent is not None
        verified = self.clock.seconds["verify"] - prepared.spent["verify"]
        drafted = 0.0
        if prepared.draft is not None:
            drafted = self.clock.seconds["draft"] - prepared.spent["draft"] + prepared.seconds
        outcome = Outcome(done.chosen, prepared.context, seconds + prepared.seconds, verified, drafted)
        self._to_study = (proposal, self.planner.count(proposal, outcome))
        return replace(done, kind=proposal.kind, expected=proposal.choice.expected)

    def _plainly(self, count: int) -> Iterator[Round]:
        """Decode so many tokens plainly, fewer if the text begins to repeat itself, and take their time."""
        return self._timed(plain_rounds(self.state, self.plan, self.text, self.clock, self._until_a_copy(count)))

    def _until_a_copy(self, pause: int) -> Callable[[int], bool]:
        """For plain_rounds: `pause` tokens, fewer if the text begins to repeat itself."""
        state = self.state
        planner = self.planner

        def more(done: int) -> bool:
            return done < pause and not planner.ends_plain_run(state.token_ids, state.context)

        return more

    def _timed(self, steps: Iterator[Round]) -> Iterator[Round]:
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
            last_ready = ready
            resumed = perf_counter()
