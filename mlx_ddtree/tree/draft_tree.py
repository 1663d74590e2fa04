"""The draft tree as flat arrays, and its ancestor mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DraftTree:
    """A prefix-closed tree of draft tokens, parents before children; N = nodes + root.

    token_ids: (N,) int32; token_ids[0] is the root, the bonus token of the last round.
    parents: (N,) int32; parents[0] == -1 and parents[i] < i.
    depths: (N,) int32; the root has depth 0.
    log_weights: (N,) float32; log q(u) of the node's prefix under the drafter, root 0.  In the
        order in which the heap popped them, so never increasing after the root.
    """

    token_ids: NDArray[np.int32]
    parents: NDArray[np.int32]
    depths: NDArray[np.int32]
    log_weights: NDArray[np.float32]

    @classmethod
    def chain(cls, token_ids: NDArray[np.integer], log_probs: NDArray[np.floating] | None = None) -> DraftTree:
        """The linear block: token_ids (N,), root first; log_probs (N-1,) of the draft tokens."""
        count = len(token_ids)
        weights = np.zeros(count, np.float32)
        if log_probs is not None:
            weights[1:] = np.cumsum(log_probs)
        return cls(
            np.asarray(token_ids, np.int32),
            np.arange(-1, count - 1, dtype=np.int32),
            np.arange(count, dtype=np.int32),
            weights,
        )

    @classmethod
    def root(cls, token_id: int) -> DraftTree:
        """A tree without drafts: verifying it is one step of plain decoding."""
        return cls.chain(np.array([token_id]))

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        return self.chain_nodes == len(self) - 1

    @cached_property
    def chain_nodes(self) -> int:
        """The largest prefix (see there) without branches has so many nodes."""
        follows = self.parents == np.arange(-1, len(self) - 1)
        return len(self) - 1 if follows.all() else int(follows.argmin()) - 1

    def prefix(self, nodes: int) -> DraftTree:
        """The tree of the `nodes` heaviest nodes: pop order makes every prefix a valid tree."""
        stop = nodes + 1
        return DraftTree(self.token_ids[:stop], self.parents[:stop], self.depths[:stop], self.log_weights[:stop])

    def expected_accepted(self) -> NDArray[np.float64]:
        """(N,) Phi(n), the expected number of accepted nodes if only n nodes were kept, n = 0..N-1.

        DDTree, Prop. 1: the sum of the prefix weights, under the drafter's own distribution.
        """
        weights = np.exp(self.log_weights.astype(np.float64))
        weights[0] = 0.0
        return np.cumsum(weights)

    def expected_by_depth(self, length: int) -> NDArray[np.float64]:
        """(at least `length`,) the probability that at least d nodes are accepted, d = 0.."""
        weights = np.exp(self.log_weights.astype(np.float64))
        return np.bincount(self.depths, weights, minlength=length).astype(np.float64)

    def ancestor_mask(self) -> NDArray[np.bool_]:
        """(N, N) bool: row i is true at i's ancestors, the root and i itself."""
        mask = np.eye(len(self), dtype=np.bool_)
        for depth in range(1, int(self.depths.max(initial=0)) + 1):
            nodes = np.flatnonzero(self.depths == depth)
            mask[nodes] |= mask[self.parents[nodes]]
        return mask

    def ancestor_bits(self) -> NDArray[np.uint32]:
        """(N, ceil(N / 32)) uint32: the ancestor mask, node j in bit j % 32 of word j // 32."""
        mask = self.ancestor_mask()
        padded = np.zeros((len(self), -(-len(self) // 32) * 32), np.bool_)
        padded[:, : len(self)] = mask
        return np.packbits(padded, axis=1, bitorder="little").view("<u4")

    def path_to(self, node: int) -> list[int]:
        """Node indices from the root to `node`, both included."""
        path = [node]
        while path[-1] > 0:
            path.append(int(self.parents[path[-1]]))
        return path[::-1]
