"""What a call's rounds were like: sizes, kinds, and how well their outcome was predicted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mlx_ddtree.decoding.round import Round
from mlx_ddtree.icecache.reads import Reads
from mlx_ddtree.target.rank_traffic import RankTraffic


@dataclass
class RoundStatistics:
    """Counts over the rounds so far.

    nodes: rounds by size of their tree, root excluded.
    kinds: rounds by kind: 'draft', 'lookup', 'plain', 'tie' (a near tie, decided by a row of its own).
    accepted: rounds by accepted nodes.
    predicted, observed: accepted nodes in all, of the rounds whose outcome was predicted.
    reads: what a cache that is read in part was asked for (icecache).
    exchange: what the ranks of a target on several machines have exchanged.
    """

    nodes: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    accepted: Counter[int] = field(default_factory=Counter)
    predicted: float = 0.0
    observed: int = 0
    reads: Reads | None = None
    exchange: RankTraffic | None = None

    def add(self, done: Round) -> None:
        self.nodes[done.nodes] += 1
        self.kinds[done.kind] += 1
        self.accepted[done.accepted] += 1
        if done.expected is not None:
            self.predicted += done.expected
            self.observed += done.accepted

    def as_dict(self) -> dict[str, Any]:
        """For JSON: keys are strings, in order."""
        rounds = max(self.nodes.total(), 1)
        return {
            "nodes": {str(n): self.nodes[n] for n in sorted(self.nodes)},
            "accepted": {str(n): self.accepted[n] for n in sorted(self.accepted)},
            "kinds": {kind: round(count / rounds, 4) for kind, count in sorted(self.kinds.items())},
            "predicted_accepted": round(self.predicted, 2),
            "observed_accepted": self.observed,
            **({} if self.reads is None else {"kv_reads": self.reads.as_dict()}),
            **({} if self.exchange is None else {"exchange": self.exchange.as_dict()}),
        }

    def lines(self) -> str:
        """For --verbose."""
        rounds = max(self.nodes.total(), 1)
        kinds = ", ".join(f"{kind} {count / rounds:.0%}" for kind, count in self.kinds.most_common())
        nodes = ", ".join(f"{n}: {self.nodes[n]}" for n in sorted(self.nodes))
        predicted = f"{self.predicted:.0f} predicted, {self.observed} observed"
        reads = "" if self.reads is None else f"\n{self.reads.line()}"
        exchange = "" if self.exchange is None else f"\n{self.exchange.line(rounds)}"
        return f"Rounds by kind: {kinds}\nRounds by nodes: {nodes}\nAccepted nodes: {predicted}{reads}{exchange}"
