"""Which verification's graph to make before the draft is read, and when to use it.

Making a graph is the host's work; while the device drafts it is free.  But then the number of rows is settled before
the draft says how many are worth their time: a tree that wants others has its graph made while the device waits, or is
cut or grown to the one that is there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget.cost import CostTable
from mlx_ddtree.budget.policy import Choice
from mlx_ddtree.budget.survival import MEMORY


class Graph(NamedTuple):
    """The graph of a verification that is made before its tree is known.

    rows: one of the cost table's numbers, root included.  chain: whether the tree will have no branches.
    seconds: of the host's that it took.
    """

    rows: int
    chain: bool
    seconds: float = 0.0


class GraphsAhead:
    """One text's choice of graphs.

    worth: (2, len(cost.rows)) tokens that a round of so many rows was worth, of trees and of chains; a running mean.
    """

    def __init__(self, cost: CostTable) -> None:
        self.cost = cost
        self.worth: NDArray[np.float64] | None = None

    def next(self) -> Graph | None:
        """The graph that was worth most on average of the last drafts; None before the first draft."""
        if self.worth is None:
            return None
        of_several_rows = self.worth[:, 1:]
        chain, place = np.unravel_index(int(np.argmax(of_several_rows)), of_several_rows.shape)
        return Graph(self.cost.rows[int(place) + 1], bool(chain))

    def compare(
        self, expected: NDArray[np.floating], of_chain: NDArray[np.floating], rate: float, context: int
    ) -> None:
        """Take note of a draft that was read.

        expected, of_chain: (N,) expected accepted nodes of its best tree and of its best chain by number of nodes,
        from 0.  rate: tokens a second that a second is counted as.
        """
        worth = np.stack([self._worth(expected, rate, context, False), self._worth(of_chain, rate, context, True)])
        if self.worth is None:
            self.worth = worth
        self.worth += MEMORY * (worth - self.worth)

    def _worth(self, expected: NDArray[np.floating], rate: float, context: int, chain: bool) -> NDArray[np.float64]:
        """(len(cost.rows),) by rows, which have nodes as far as there are any."""
        nodes = np.minimum(self.cost.rows, len(expected)) - 1
        return 1 + expected[nodes] - rate * np.array(self.cost.verification(context, chain))

    def fill(self, graph: Graph, expected: NDArray[np.floating], rate: float, context: int) -> Choice:
        """As many nodes as the graph has rows for, which do not cost the host's time that it took to make.

        expected: of the tree or chain that it is for.
        """
        nodes = min(graph.rows, len(expected)) - 1
        place = self.cost.rows.index(graph.rows)
        seconds = max(self.cost.verifying(place, context, graph.chain) - graph.seconds, 0.0)
        return Choice(nodes, float(expected[nodes]), float(1 + expected[nodes] - rate * seconds), seconds)
