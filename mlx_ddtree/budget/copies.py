"""One text's copies: what it, and texts before it, said behind the same tokens, as candidates of calibrated chances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush

from mlx_ddtree.budget.calibration import AGREES, DISAGREES, UNASKED, RecallCalibration, Trust
from mlx_ddtree.budget.recall import Recall, Recalled
from mlx_ddtree.budget.suffixes import SuffixIndex
from mlx_ddtree.tree.lattice import END, NextTokens, after_token

LONGEST_COPY = 32
"""Tokens of a copied path; it may be longer than the drafter's block."""
FAINTEST = 0.02
"""A copied path ends where it is less probable than this."""
MOST_PLACES = 48
"""Places of a round that are looked up."""
BESIDE = 0.2
"""A first token that is less probable than this adds nothing beside a drafter."""


class Copies:
    """What one text's rounds copy.

    calibration: shared by all texts of a pair.  others: earlier texts, which are only read.
    trust: of this text.
    going_on: of its tokens behind a copied one that was right.  Most texts that repeat a few tokens go on otherwise,
        some repeat themselves for long, and what copies were worth elsewhere is a mixture of both.
    """

    def __init__(self, calibration: RecallCalibration, others: Sequence[SuffixIndex] = ()) -> None:
        self.calibration = calibration
        self.recall = Recall(others=others)
        self.trust = Trust()
        self.going_on = Trust(at_first=0.8, pseudo_hits=6.0, decay=0.95)

    def after(self, token_ids: Sequence[int], *, beside_drafter: bool) -> Recalled | None:
        """What may follow a text; None where that is nothing worth a place.

        token_ids: all of the text, prompt included; what was not given before is new.
        beside_drafter: whether it stands beside a drafter's candidates: then it has to promise something.
        """
        self.recall.read(token_ids)
        recalled = self.recall.next()
        if recalled is None or (beside_drafter and self.first_chance(recalled) < BESIDE):
            return None
        return recalled

    def first_chance(self, recalled: Recalled) -> float:
        """That the best token is right, where no drafter is asked."""
        return max(self._chances(recalled, END), default=0.0)

    def lattice(self, recalled: Recalled, beside: NextTokens = END, off_spine: Sequence[NextTokens] = ()) -> NextTokens:
        """The copied paths as a lattice, the most probable MOST_PLACES of its places.

        beside: the drafter's lattice, whose best candidates agree or do not; off_spine: as for `add_lattice`.
        """
        first = self._row(recalled, beside, 1.0, 1.0)
        going_on = min(self.going_on.factor, 1.0)
        heap: list[tuple[float, int, NextTokens, int, Recalled, NextTokens, int]] = []
        offers = 0
        row, node, following, chance, depth = first, recalled, beside, 1.0, 1
        for _ in range(MOST_PLACES):
            # 1. What may follow the tokens of the newest row.
            if depth < LONGEST_COPY:
                for rank, score in enumerate(row.scores):
                    heappush(heap, (-chance * math.exp(score), offers, row, rank, node, following, depth))
                    offers += 1
            # 2. The most probable place that was not looked up yet.
            if not heap:
                break
            negative_chance, _, before, rank, node, following, depth = heappop(heap)
            chance = -negative_chance
            token = before.token_ids[rank]
            node = node.after(token)
            following = after_token(following, token, off_spine, depth)
            depth += 1
            row = self._row(node, following, chance, going_on)
            assert isinstance(before.after, list)
            before.after[rank] = row if row.token_ids else None
        return first

    def learn(self, recalled: Recalled, chosen: Sequence[int]) -> None:
        """Count how right the candidates were along the path that the target chose, as far as they were asked for."""
        outcomes = []
        asked: list[tuple[float, bool]] = []
        node: Recalled | None = recalled
        for token in chosen:
            if node is None or node.relations is None:
                break
            chances = self.calibration.apply(node.matches, node.chances, node.relations)
            asked.append((sum(chances), token in node.token_ids))
            for candidate, match, chance, relation in zip(
                node.token_ids, node.matches, node.chances, node.relations, strict=True
            ):
                outcomes.append((self.calibration.cell(match, chance, relation), chance, candidate == token))
            node = node.known_after(token)
        self.trust.update(sum(chance for chance, _ in asked), sum(right for _, right in asked))
        self.going_on.update(sum(chance for chance, _ in asked[1:]), sum(right for _, right in asked[1:]))
        self.calibration.update(outcomes)

    def _row(self, recalled: Recalled, following: NextTokens, path_chance: float, factor: float) -> NextTokens:
        """The candidates of a place that are worth it, their chances times a factor, as a row without what follows."""
        chances = [chance * factor for chance in self._chances(recalled, following)]
        entries = [
            entry for entry in zip(chances, recalled.token_ids, strict=True) if entry[0] * path_chance >= FAINTEST
        ]
        entries.sort(key=lambda entry: -entry[0])
        return NextTokens(
            [token for _, token in entries], [math.log(chance) for chance, _ in entries], [None] * len(entries)
        )

    def _chances(self, recalled: Recalled, following: NextTokens) -> list[float]:
        """Calibrated, in the order of the candidates; how they relate to the drafter's best is noted."""
        if following.token_ids:
            best = following.token_ids[0]
            recalled.relations = [AGREES if token == best else DISAGREES for token in recalled.token_ids]
        else:
            recalled.relations = [UNASKED] * len(recalled.token_ids)
        return self.calibration.apply(recalled.matches, recalled.chances, recalled.relations, self.trust.factor)
