"""One round over several continuations of a prompt: a draft for all, a tree each, one forward of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import mlx.core as mx
import numpy as np

from mlx_ddtree.branches.draft import BranchCache, draft_branches, extend_branches
from mlx_ddtree.branches.rows import BranchSlots, ForestRows
from mlx_ddtree.budget.forest import ForestBudget
from mlx_ddtree.decoding.draft import finish_draft, start_candidates
from mlx_ddtree.decoding.plan import RoundPlan
from mlx_ddtree.decoding.round import Clock
from mlx_ddtree.decoding.sampler import Sampler
from mlx_ddtree.decoding.sampling import choose_tokens
from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.text import TextStream
from mlx_ddtree.target import TreeTarget
from mlx_ddtree.tree import DraftTree, accept, build_tree
from mlx_ddtree.tree.lattice import Candidates


@dataclass
class BranchesResponse:
    """What a round added to the n texts.

    texts, tokens: new pieces, by branch; empty where a branch has ended.
    finish_reasons: 'stop', 'length', or None while it goes on.
    generation_tokens: of all branches so far; rounds: forwards so far, the prompt's not counted.
    nodes, accepted: of this round's trees, roots excluded, all branches together.
    kv_rows: rows of keys and values that the rounds so far read in each layer; kv_rows_alone: the same if every
        branch had read the prompt by itself.
    seconds: wall time by stage so far.
    """

    texts: list[str]
    tokens: list[list[int]]
    finish_reasons: list[str | None]
    seeds: list[int]
    prompt_tokens: int
    generation_tokens: int
    rounds: int
    nodes: int
    accepted: int
    kv_rows: int
    kv_rows_alone: int
    seconds: dict[str, float]
    peak_memory: float


@dataclass
class Branch:
    """root: the bonus token; token_ids: prompt and text, root included; new: this round's tokens."""

    sampler: Sampler
    text: TextStream
    root: int = -1
    token_ids: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)

    def emit(self, tokens: list[int]) -> bool:
        """Take what a round chose; whether the text goes on."""
        self.new = tokens[: self.text.keep(tokens)]
        self.token_ids.extend(self.new)
        self.root = self.new[-1]
        return not self.text.ended


class Forest:
    """All branches behind one prompt."""

    def __init__(self, state: DecodeState, plan: RoundPlan, branches: list[Branch], clock: Clock) -> None:
        """state: after the prefill; its caches are the branches' from now on."""
        assert isinstance(state.pair.target, TreeTarget)
        self.pair, self.plan, self.branches, self.clock = state.pair, plan, branches, clock
        self.target, self.cache = state.pair.target, state.caches.target
        self.drafter_cache = [BranchCache.of(layer) for layer in state.caches.drafter]
        self.budget: ForestBudget | None = None
        if plan.method != "ar" and plan.adaptive:
            assert self.pair.profile is not None
            self.budget = ForestBudget(self.pair.profile)
        self.branch_slots = BranchSlots(state.length + 1, len(branches))
        self.waiting: list[tuple[mx.array, np.ndarray]] = []  # features that the drafter has not seen, and positions
        self.rounds = self.nodes = self.accepted = self.tokens = self.kv_rows = self.kv_rows_alone = 0
        self._begin(state)
        self.live = [i for i, branch in enumerate(branches) if not branch.text.ended]

    def _begin(self, state: DecodeState) -> None:
        """The prompt's last token, alone as ever, says every branch's first one."""
        hidden, features = self.target.forward(mx.array([[state.root]]), self.cache)
        self._keep_features(features, np.array([state.length]))
        logits, root = self.target.unembed(hidden[0]), DraftTree.root(-1)
        chosen = [self._choose(logits, root, branch, state.length, state.token_ids) for branch in self.branches]
        mx.eval(chosen)
        for branch, token in zip(self.branches, chosen, strict=True):
            branch.token_ids = list(state.token_ids)
            branch.emit(token.tolist())  # type: ignore[arg-type]

    def round(self) -> None:
        """One forward for all."""
        started, before = perf_counter(), self.clock.seconds["verify"]
        trees = self._trees()
        with self.clock("verify"):
            rows = ForestRows(self.branch_slots, list(self.live), trees)
            token_ids = mx.array(np.concatenate([tree.token_ids for tree in trees]))[None]
            hidden, features, pending = self.target.forward_rows(token_ids, rows, self.cache)
            chosen = self._answers(self.target.unembed_tree(hidden[0]), rows)
        paths = [accept(tree, said) for tree, said in zip(trees, chosen, strict=True)]
        self._count(rows, paths)
        with self.clock("commit"):
            kept = self._emit(rows, paths, chosen)
            pending.commit(kept)
            if features is not None and kept:
                self._keep_features(mx.take(features, mx.array(kept), axis=1), rows.places[kept])
            if self.live and len(self.live) < len(trees):
                self._compact()
        if self.budget is not None:
            verify = self.clock.seconds["verify"] - before
            self.budget.saw(rows.count, rows.start, self.accepted, verify, perf_counter() - started - verify)

    def _answers(self, logits: mx.array, rows: ForestRows) -> list[list[int]]:
        """(N, V) -> what the target says after every node, by branch."""
        chosen = []
        for i, tree, first in zip(rows.branches, rows.trees, rows.firsts, strict=False):
            branch, start = self.branches[i], self.branch_slots.prefix + len(self.branch_slots.slots[i])
            chosen.append(self._choose(logits[first : first + len(tree)], tree, branch, start, branch.token_ids))
        mx.eval(chosen)
        return [answers.tolist() for answers in chosen]  # type: ignore[misc]

    def _emit(self, rows: ForestRows, paths: Sequence[list[int]], chosen: Sequence[list[int]]) -> list[int]:
        """Hand out what was accepted; the rows to keep, branch by branch.  Of a text that ends nobody will read any."""
        kept: list[int] = []
        counts = [0] * len(self.branches)
        for branch in self.branches:
            branch.new = []
        for i, path, said, first in zip(rows.branches, paths, chosen, rows.firsts, strict=False):
            if self.branches[i].emit([said[node] for node in path]):
                counts[i] = len(path)
                kept += [int(first) + node for node in path]
            else:
                self.branch_slots.drop(i)
                self.live.remove(i)
        self.branch_slots.append(counts)
        return kept

    def _count(self, rows: ForestRows, paths: Sequence[list[int]]) -> None:
        lengths = rows.prefixes.lengths
        self.rounds, self.nodes = self.rounds + 1, rows.count - len(paths)
        self.accepted = sum(map(len, paths)) - len(paths)
        self.kv_rows += rows.plan.plan.kv_rows
        self.kv_rows_alone += len(paths) * int(lengths[0]) + int(lengths[1:].sum())

    def _trees(self) -> list[DraftTree]:
        roots = [self.branches[i].root for i in self.live]
        budget = self.plan.tree_budget
        if self.plan.method == "ar" or budget == 0 or (self.budget is not None and self.budget.rests()):
            return [DraftTree.root(root) for root in roots]
        with self.clock("draft"):
            candidates = self._draft(roots)
        with self.clock("tree"):
            if self.budget is not None:
                return self.budget.trees(roots, candidates, self.branch_slots.used)
            assert budget != "auto"
            return [build_tree(root, *found, budget) for root, found in zip(roots, candidates, strict=True)]

    def _draft(self, roots: Sequence[int]) -> list[Candidates]:
        """Candidates of every branch from one forward of the drafter."""
        drafter, linear = self.pair.drafter, self.plan.method == "dflash"
        assert drafter is not None
        size = self.plan.block_size or drafter.config.block_size
        top_k = 1 if linear else 16 if self.plan.adaptive else int(self.plan.tree_budget)
        blocks = mx.array([drafter.block_ids(root, size) for root in roots])
        embedded = drafter.embed(blocks, self.target.embed)
        features, positions = self._take_features()
        hidden = draft_branches(
            drafter, embedded, features, positions, self.drafter_cache, self.branch_slots, self.live
        )
        started = [
            start_candidates(self.pair, block[0], rows[drafter.config.logits_start :], top_k)
            for block, rows in zip(blocks, hidden, strict=True)
        ]
        mx.eval([draft.result for draft in started])
        return [finish_draft(draft) for draft in started]

    def _choose(
        self, logits: mx.array, tree: DraftTree, branch: Branch, position: int, token_ids: Sequence[int]
    ) -> mx.array:
        """What the target says after each node for this branch's seed; the root stands at `position`."""
        return choose_tokens(logits, tree, position + 1, token_ids, branch.sampler, self.plan.processors).token_ids

    def _keep_features(self, features: mx.array | None, positions: np.ndarray) -> None:
        if self.drafter_cache and features is not None:
            self.waiting.append((features, positions))

    def _take_features(self) -> tuple[mx.array, np.ndarray]:
        waiting, self.waiting = self.waiting, []
        drafter = self.pair.drafter
        assert drafter is not None
        pieces = [drafter.no_features(), *(features for features, _ in waiting)]
        positions = [np.zeros(0, np.int64), *(places for _, places in waiting)]
        return mx.concatenate(pieces, axis=1), np.concatenate(positions)

    def _compact(self) -> None:
        """Give the room of branches that have ended to the others, once it is most of it."""
        living = sum(map(len, self.branch_slots.slots))
        if 2 * living > self.branch_slots.used - self.branch_slots.prefix:
            return
        if self.waiting and self.pair.drafter is not None:
            extend_branches(self.pair.drafter, *self._take_features(), self.drafter_cache)
        self.branch_slots.compact([*((layer, 0) for layer in self.cache), *self.drafter_cache])

    def response(self, prompt_tokens: int) -> BranchesResponse:
        self.tokens += sum(len(branch.new) for branch in self.branches)
        return BranchesResponse(
            texts=[branch.text.take() for branch in self.branches],
            tokens=[branch.new for branch in self.branches],
            finish_reasons=[branch.text.finish_reason for branch in self.branches],
            seeds=[branch.sampler.seed for branch in self.branches],
            prompt_tokens=prompt_tokens,
            generation_tokens=self.tokens,
            rounds=self.rounds,
            nodes=self.nodes,
            accepted=self.accepted,
            kv_rows=self.kv_rows,
            kv_rows_alone=self.kv_rows_alone,
            seconds=dict(self.clock.seconds),
            peak_memory=mx.get_peak_memory() / 1e9,
        )
