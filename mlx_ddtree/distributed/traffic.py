"""What ranks exchange: counted, not measured; tests/distributed compare it with what the sockets carried."""

from __future__ import annotations

import io
from dataclasses import replace

import mlx.core as mx

from mlx_ddtree.distributed.ranks import Leader
from mlx_ddtree.target.rank_traffic import RankTraffic

EXCHANGES = ("AllReduce", "AllGather", "Send", "Recv")
"""MLX's names for the operations of a graph that exchange something."""


class Traffic:
    """Counts the exchanges of a target's forwards."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._per_forward = 0
        self._counted = RankTraffic(leader.size)

    @property
    def counted(self) -> RankTraffic:
        return replace(self._counted, order_bytes=self._leader.sent_bytes)

    def count(self, hidden: mx.array, *, tokens: int = 0, features: int = 0) -> None:
        """A forward that is about to be sent off: hidden (1, n, D).

        tokens, features: bytes of these, where they are exchanged too.  All else is exchanged in arrays like `hidden`.
        """
        if not self._per_forward:
            self._per_forward = exchanges_of(hidden) - bool(tokens)
        before = self._counted
        self._counted = replace(
            before,
            forwards=before.forwards + 1,
            rows=before.rows + hidden.shape[1],
            collectives=before.collectives + self._per_forward + bool(tokens) + bool(features),
            payload_bytes=before.payload_bytes + self._per_forward * hidden.nbytes + tokens + features,
        )


def exchanges_of(array: mx.array) -> int:
    """Operations of a graph that exchange something with other ranks."""
    graph = io.StringIO()
    mx.export_to_dot(graph, array)
    found = 0
    for line in graph.getvalue().splitlines():
        if "label" in line and any(name in line for name in EXCHANGES):
            found += 1
    return found
