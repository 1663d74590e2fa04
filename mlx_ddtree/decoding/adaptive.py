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
    draft: on its way where the round drafts; of block_size tokens, root included.
    unread: whether its best path is verified before anyone has read it.
    built: the graph of its verification, made while the device drafts.
    began, sent, asked: when the host began with it, when it had sent its draft off, and when its tree was asked for.
    spent: the clock's seconds by stage when its tree was asked for; what the drafter reads of a prompt was before.
    """

    context: int = 0
    copy: Recalled | None = None
    proposal: Proposal | None = None
    draft: StartedDraft | None = None
    block_size: int = 0
    unread: bool = False
    built: BuiltAhead | None = None
    began: float = 0.0
    sent: float = 0.0
    asked: float = 0.0
    spent: dict[str, float] | None = None

    def preparing(self, drafting: float) -> float:
        """Seconds from its beginning until its tree was asked for.

        drafting: that the device needs for the draft.  What the caller does with the last round meanwhile counts as
        long as that at most: it is no part of the round, but the draft has not to be waited for any more.
        """
        handed_out = min(self.asked - self.sent, drafting)
        return self.sent - self.began + handed_out


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
        self._ended: float | None = None  # when the last round did, if nothing came between
        self._to_study: tuple[Proposal, Outcome] | None = None

    def prepare(self) -> Iterator[Round] | None:
        """Send off the next draft, or the first step of plain decoding before it; study the last round meanwhile."""
        began = perf_counter() if self._ended is None else self._ended
        self._ended = None
        self.prepared = _Prepared(self.state.context, began=began)
        plain = self._begin() if self.may_begin() else None
        if self._to_study is not None:
            self.planner.study(*self._to_study)
            self._to_study = None
        self.prepared.sent = perf_counter()
        return plain

    def _begin(self) -> Iterator[Round] | None:
        """Decide on the next round's kind and send off what it begins with."""
        state = self.state
        planner = self.planner
        prepared = self.prepared
        assert state.root is not None
        prepared.copy = planner.copy_after(state.token_ids)
        prepared.proposal = planner.without_draft(state.root, prepared.copy, state.context)
        if prepared.proposal is None:
            pause = planner.pause(state.context)
            if pause:
                return self._plainly(pause)
            self._start_draft(prepared)
        return None

    def _start_draft(self, prepared: _Prepared) -> None:
        """Send the drafter off for a tree, or for a chain that need not be read."""
        planner = self.planner
        if self.state.walk is None and can_stay_unread(self.state.pair, self.plan):
            prepared.block_size = planner.unread_block(prepared.context)
        prepared.unread = prepared.block_size > 0
        if not prepared.unread:
            prepared.block_size = planner.next_block_size(prepared.context)
        with self.state.all_or_nothing(), self.clock("draft"):
            prepared.draft = start_draft(self.state, prepared.block_size, 1 if prepared.unread else planner.top_k)

    def propose(self, root: int) -> Proposed:
        """The tree to verify behind this root, once the draft is there; or a chain that is verified unread."""
        prepared = self.prepared
        prepared.spent = dict(self.clock.seconds)
        prepared.asked = perf_counter()
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

    def learn(self, done: Round) -> Round:
        """Take note of how the proposed round went; the round with what was expected of it."""
        self._ended = perf_counter()
        proposal = self.prepared.proposal
        if proposal is None or done.alone:  # a near tie: nothing was proposed, or nothing of it was used
            return done
        outcome = self._outcome(done, self._ended)
        self._to_study = (proposal, self.planner.count(proposal, outcome))
        return replace(done, kind=proposal.kind, expected=proposal.choice.expected)

    def _outcome(self, done: Round, ended: float) -> Outcome:
        """How the prepared round went, and what it took: all of the host's work on it, and all that it waited for."""
        prepared = self.prepared
        assert prepared.spent is not None
        verified = self.clock.seconds["verify"] - prepared.spent["verify"]
        preparing = prepared.preparing(0.0)
        drafted = 0.0
        if prepared.draft is not None:
            preparing = prepared.preparing(self.planner.profile.cost.drafting(prepared.block_size))
            drafted = preparing + self.clock.seconds["draft"] - prepared.spent["draft"]
        return Outcome(done.chosen, prepared.context, preparing + ended - prepared.asked, verified, drafted)

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
