"""One sequence's rounds, planned: what to verify next, and what to learn from how it went.

Pure numpy, fed by decoding/adaptive.py while a model runs, and by studies/budget/simulate_machines.py from recorded
drafts.  A round of kind 'draft' asks the drafter, 'lookup' only copies what stood behind the same tokens earlier,
'forced' what a grammar leaves no choice about, 'plain' is a step of plain decoding.  Copies also enter drafted trees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlx_ddtree.budget.certainty import Constrain, certain_tokens, doubtful, likely_behind
from mlx_ddtree.budget.copies import Copies
from mlx_ddtree.budget.corrections import MOST
from mlx_ddtree.budget.graphs import Graph, GraphsAhead
from mlx_ddtree.budget.policy import BudgetPolicy, Choice
from mlx_ddtree.budget.profile import Profile
from mlx_ddtree.budget.proposal import Outcome, Proposal
from mlx_ddtree.budget.recall import Recalled
from mlx_ddtree.budget.suffixes import SuffixIndex
from mlx_ddtree.budget.unread import UnreadChains
from mlx_ddtree.tree.build import grow_tree
from mlx_ddtree.tree.draft_tree import DraftTree
from mlx_ddtree.tree.lattice import (
    END,
    Candidates,
    NextTokens,
    add_lattice,
    best_chain,
    candidate_lattice,
    off_spine_by_depth,
)

LEAST_FOR_A_STOP = 0.15
"""Plain decoding is not interrupted where the next two tokens are less likely to be known than this."""
TOP_K = 16
"""Candidates of a position: more never enter the trees that machines can afford."""


class Planner:
    """Plans one sequence's rounds and learns from them; what is learned is the profile's, for all sequences.

    greedy: whether the target takes the argmax; its choices are calibrated apart from samples.
    linear: chains only, and no copies beside a drafter (method 'dflash').
    block_size: the only one to use; None chooses among the measured ones.
    memory: earlier texts that may be copied from.
    constrain: what a grammar makes of a draft's lattice; None: there is none.
    drafts: whether there is a drafter; without one, rounds copy or are plain.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        greedy: bool,
        linear: bool = False,
        block_size: int | None = None,
        memory: Sequence[SuffixIndex] = (),
        constrain: Constrain | None = None,
    ) -> None:
        self.profile = profile
        self.linear = linear
        self.constrain = constrain
        self.drafts = bool(profile.cost.draft)
        self.policy = BudgetPolicy(profile.cost, block_size, profile.survival(greedy))
        self.unread = UnreadChains(profile.cost, self.policy.block_sizes, profile.comparison(greedy))
        self.graphs = GraphsAhead(profile.cost)
        self.calibration = profile.draft_calibration(greedy)
        self.copies = Copies(profile.lookups, memory)
        self.top_k = 1 if linear and constrain is None else TOP_K

    def pause(self, context: int) -> int:
        """Tokens to decode plainly before the next draft; 0 drafts now."""
        return self.policy.pause(context)

    def copy_after(self, token_ids: Sequence[int]) -> Recalled | None:
        """What followed the text's last tokens where they stood before, in this text or in memory.

        token_ids: the whole text, prompt included; what was not given before is new.
        """
        if self.linear and self.drafts:
            return None
        return self.copies.after(token_ids, beside_drafter=self.drafts)

    def without_draft(self, root: int, copy: Recalled | None, context: int) -> Proposal | None:
        """A round that copies, or verifies what a grammar forces, where the drafter could add little; else None."""
        if self.constrain is None and (copy is None or (self.drafts and not self.policy.may_skip_drafter())):
            return None
        return self._without_draft(root, self._copied(copy), copy, context)

    def _copied(self, copy: Recalled | None) -> NextTokens:
        """A copy as a lattice, and what a grammar makes of it."""
        return self._constrained(END if copy is None else self.copies.lattice(copy))

    def _constrained(self, first: NextTokens) -> NextTokens:
        return first if self.constrain is None else self.constrain(first)

    def _without_draft(self, root: int, first: NextTokens, copy: Recalled | None, context: int) -> Proposal | None:
        """The lattice of a copy, or of what must follow, as a round; None where it is not worth one."""
        may_skip = not self.drafts or self.policy.may_skip_drafter()
        if not first.token_ids or not (may_skip or certain_tokens(first)):
            return None
        affordable = self.policy.affordable_copy(context, math.exp(first.scores[0]))
        tree, choice, _ = self._worth(root, first, context, affordable)
        if choice.nodes == 0 or not self.policy.beats_others(choice, context):
            return None
        return Proposal("forced" if copy is None else "lookup", tree, choice, None, copy)

    def ends_plain_run(self, token_ids: Sequence[int], context: int) -> bool:
        """Whether plain decoding is to be interrupted, behind a token that is not known yet, for a copy."""
        copy = self.copy_after(token_ids)
        if self.constrain is not None:
            return self._ends_in_grammar(self._copied(copy), copy, context)
        if copy is None:
            return False
        best = copy.token_ids[0]
        behind = copy.after(best)
        if self.copies.first_chance(copy) * self.copies.first_chance(behind) < LEAST_FOR_A_STOP:
            return False
        return self._gains(self.without_draft(best, behind, context + 1), context)

    def _ends_in_grammar(self, first: NextTokens, copy: Recalled | None, context: int) -> bool:
        """Whether to interrupt for a copy or for what a grammar forces, by the lattice of what may follow the text."""
        behind = likely_behind(first, LEAST_FOR_A_STOP)
        return self._gains(self._without_draft(-1, behind, copy, context + 1), context)  # nobody asks for the root

    def _gains(self, proposal: Proposal | None, context: int) -> bool:
        """Whether a round is worth more than a step of plain decoding, which is interrupted for it."""
        return proposal is not None and self.policy.gain(proposal.choice, context) > 0

    def next_block_size(self, context: int) -> int:
        """Positions of the next draft, root included."""
        return self.policy.next_block_size(context)

    def unread_block(self, context: int) -> int:
        """Tokens of the next block, root included, if its best path is to be verified unread; 0 if it is to be read."""
        return self.unread.next_block(context, self.policy.trust.factor, self.policy.affordable(context))

    def without_reading(self, shape: DraftTree, context: int) -> Proposal:
        """A whole block's best path; shape: its chain, tokens unknown."""
        seconds = self.profile.cost.unread_chain(len(shape), context)
        expected = self.unread.expected(len(shape))
        return Proposal("draft", shape, Choice(len(shape) - 1, expected, 0.0, seconds), unread=True)

    def next_graph(self) -> Graph | None:
        """The graph of a verification that is worth making before the draft is read, if one is."""
        return self.graphs.next()

    def with_draft(
        self, root: int, candidates: Candidates, copy: Recalled | None, context: int, built: Graph | None = None
    ) -> Proposal:
        """The tree of the nodes that are worth their rows; built: a graph that waits for one."""
        # 1. The candidates as a lattice, with calibrated scores and the copies as further paths.
        spine, off_spine = self.calibration.apply(candidates.log_probs, self.policy.trust.factor)
        first = candidate_lattice(candidates.token_ids, spine, off_spine)
        if copy is not None:
            others = off_spine_by_depth(first)
            first = add_lattice(first, self.copies.lattice(copy, first, others), others)
        first = self._constrained(first)
        # 2. The part of its best tree, or of its best chain, that is worth its rows.
        affordable = self.policy.affordable(context) - self.profile.cost.drafting(len(candidates.token_ids) + 1)
        tree, choice, (grown, chain) = self._worth(root, first, context, affordable)
        # 3. What fills the graph that is there, where the making of another one would cost more than it brings.
        rate = self.policy.rate(context)
        self.graphs.compare(grown.expected_accepted(), chain.expected_accepted(), rate, context)
        graph = None
        if built is not None and choice.nodes > 0:
            whole = chain if built.chain else grown
            filled = self.graphs.fill(built, whole.expected_accepted(), rate, context)
            if filled.value > choice.value and filled.seconds <= affordable:
                tree = whole.prefix(filled.nodes)
                choice = filled
                graph = built
        # 4. How likely its best path was, which could have been verified unread.
        reached = None
        if copy is None and not candidates.pairwise and self.constrain is None:
            reached = [1.0, *np.exp(np.cumsum(spine[:, 0])).tolist()]
        return Proposal("draft", tree, choice, candidates, copy, graph=graph, reached=reached)

    def _worth(
        self, root: int, first: NextTokens, context: int, affordable: float
    ) -> tuple[DraftTree, Choice, tuple[DraftTree, DraftTree]]:
        """What of a lattice is worth its rows, and the best tree and the best chain of it, whole.

        affordable: seconds that its verification may take, beside those of tokens that are certain.
        """
        if self.constrain is not None:
            affordable += certain_tokens(first) * self.profile.cost.step(context)
        # 1. The best tree.
        grown = DraftTree.root(root)
        chain = grown
        if not self.linear or self.drafts:
            grown = grow_tree(root, first, self.policy.largest())
            chain = grown
        tree, choice = self._cut(grown, context, affordable)
        # 2. The best chain, which is verified in less time, where it is worth more.
        if self.linear or not grown.is_chain:
            tokens, scores = best_chain(first)
            chain = DraftTree.chain(np.array([root, *tokens]), np.array(scores))
            cut_chain, chain_choice = self._cut(chain, context, affordable)
            if chain_choice.value > choice.value:
                return cut_chain, chain_choice, (grown, chain)
        return tree, choice, (grown, chain)

    def _cut(self, tree: DraftTree, context: int, affordable: float) -> tuple[DraftTree, Choice]:
        """The part of the tree that is worth its rows, verified in `affordable` seconds at most."""
        choice = self.policy.choose(tree.expected_accepted(), context, tree.chain_nodes, affordable)
        return tree.prefix(choice.nodes), choice

    def learn(self, proposal: Proposal, outcome: Outcome) -> None:
        """Take note of how a proposed round went, all at once."""
        self.study(proposal, self.count(proposal, outcome))

    def count(self, proposal: Proposal, outcome: Outcome) -> Outcome:
        """Enter a round into the text's account, before the next one is planned; the outcome, for `study`.

        Its seconds are those of the machine's usual pace from here on.
        """
        promised = self._promised(proposal)
        outcome = outcome.at_usual_pace(self.profile.cost.saw_round(outcome.seconds, promised))
        tokens = len(outcome.chosen)
        rows = len(proposal.tree)
        drafted = proposal.kind == "draft"
        self.policy.saw_round(tokens, outcome.seconds, promised, rows, outcome.context, drafted)
        if proposal.unread:
            self._learn_unread(proposal, outcome)
        elif proposal.reached is not None:
            seconds = min(outcome.seconds, MOST * promised)  # what takes longer was disturbed
            expected = 1 + proposal.choice.expected
            self.unread.compare(proposal.reached, expected, seconds, outcome.context)
        return outcome

    def study(self, proposal: Proposal, outcome: Outcome) -> None:
        """Learn from a round that was counted what drafts, copies and rounds are worth.

        Nothing of it has to be known when the next draft begins, so the device drafts meanwhile.
        """
        self.profile.rounds_unsaved += 1
        if proposal.unread:
            return
        # 1. What drafts and copies are worth.
        if proposal.candidates is None:
            self.policy.saw_copy(len(outcome.chosen), outcome.seconds, outcome.context)
        else:
            self._learn_draft(proposal, proposal.candidates, outcome)
        if proposal.copy is not None:
            self.copies.learn(proposal.copy, outcome.chosen)
        # 2. What rounds cost, once it is known how fast the machine is; until then, what was only guessed.
        cost = self.profile.cost
        if cost.pace.settled or cost.guessed:
            self._learn_costs(proposal, outcome)

    def _promised(self, proposal: Proposal) -> float:
        """Seconds that the round was expected to take."""
        promised = proposal.choice.seconds + self.profile.cost.round
        if proposal.candidates is not None:
            promised += self.profile.cost.drafting(len(proposal.candidates.token_ids) + 1)
        return promised

    def _learn_draft(self, proposal: Proposal, candidates: Candidates, outcome: Outcome) -> None:
        """How the drafter's candidates did, and how deep they were accepted."""
        if self.constrain is None:
            self.calibration.learn(candidates, outcome.chosen, self.policy.trust)
        else:
            self.policy.trust.update(*doubtful(proposal.tree, outcome.chosen))
        block_size = len(candidates.token_ids) + 1
        reached = proposal.tree.expected_by_depth(block_size)
        accepted = len(outcome.chosen) - 1
        self.policy.saw_draft(accepted, reached, block_size, outcome.seconds, outcome.verify_seconds)

    def _learn_costs(self, proposal: Proposal, outcome: Outcome) -> None:
        """How long a round's draft, its verification and the rest of it took."""
        tree = proposal.tree
        cost = self.profile.cost
        graph = proposal.graph or Graph(len(tree), tree.is_chain)
        if proposal.candidates is not None:
            cost.saw_draft(len(proposal.candidates.token_ids) + 1, outcome.draft_seconds)
        cost.saw_verification(graph.rows, outcome.context, outcome.verify_seconds + graph.seconds, graph.chain)
        cost.saw_rest(outcome.seconds - outcome.verify_seconds - outcome.draft_seconds)

    def _learn_unread(self, proposal: Proposal, outcome: Outcome) -> None:
        """How deep an unread chain was accepted, and how long its round took, draft and verification together."""
        block_size = len(proposal.tree)
        accepted = len(outcome.chosen) - 1
        seconds = outcome.draft_seconds + outcome.verify_seconds
        self.unread.saw(accepted, block_size)
        self.policy.saw_unread(accepted, block_size, outcome.seconds)
        cost = self.profile.cost
        if cost.pace.settled:
            cost.saw_unread(block_size, outcome.context, seconds)
            cost.saw_rest(outcome.seconds - seconds)
