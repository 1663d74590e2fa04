"""What the ranks of a target on several machines have exchanged (counted in distributed/traffic.py)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class RankTraffic:
    """Counts of what ranks have exchanged in a call so far.

    ranks: that take part.
    forwards: of the target.
    rows: that went through all these forwards.
    collectives: in all forwards, each of them a wait for all ranks.
    payload_bytes: of all these collectives' arrays.
    order_bytes: from rank 0 to each of the others, beside MLX's collectives.
    """

    ranks: int
    forwards: int = 0
    rows: int = 0
    collectives: int = 0
    payload_bytes: int = 0
    order_bytes: int = 0

    @property
    def wire_bytes(self) -> int:
        """Bytes that each rank sends for the collectives.

        A ring's all-reduce passes every byte on 2 (ranks - 1) / ranks times.
        """
        return self.payload_bytes * 2 * (self.ranks - 1) // self.ranks

    def since(self, before: RankTraffic) -> RankTraffic:
        """What has been exchanged after `before` was counted."""
        counts = {name: value - getattr(before, name) for name, value in asdict(self).items() if name != "ranks"}
        return replace(self, **counts)

    def as_dict(self) -> dict[str, Any]:
        """All counts by name, for JSON."""
        return asdict(self) | {"wire_bytes_per_rank": self.wire_bytes}

    def line(self, rounds: int) -> str:
        """One line for people: averages over `rounds` rounds."""
        each = max(rounds, 1)
        return (
            f"Exchanged by {self.ranks} ranks a round: {self.collectives / each:.0f} collectives, "
            f"{self.wire_bytes / each / 1e3:.0f} kB sent by each rank, {self.order_bytes / each / 1e3:.2f} kB of orders"
        )
