"""The draft tree as flat arrays, its ancestor mask, and the accept walk down it."""

from __future__ import annotations

from collections.abc import Sequence
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
    log_weights: (N,) float32; log q(u) of the node's prefix under the drafter, root 0.  Nodes stand in
        the order in which the heap popped them, so the weights never increase after the root.
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
        """Whether the tree has no branches, so that its nodes are a linear block."""
        return self.chain_nodes == len(self) - 1

    @cached_property
    def chain_nodes(self) -> int:
        """How many of the heaviest nodes form a chain: `prefix(n)` is one for every n up to this number."""
        follows_the_node_before = self.parents == np.arange(-1, len(self) - 1)
        if follows_the_node_before.all():
            return len(self) - 1
        first_branch = int(follows_the_node_before.argmin())
        return first_branch - 1

    def prefix(self, nodes: int) -> DraftTree:
        """The tree of the `nodes` heaviest nodes: heap order makes every prefix a valid tree."""
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
        """(N, N) bool: entry [i, j] says whether node i sees node j, which is i or an ancestor of it."""
        words = self.ancestor_bits()
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=len(self), bitorder="little")
        return bits.view(np.bool_)

    def ancestor_bits(self) -> NDArray[np.uint32]:
        """(N, ceil(N / 32)) uint32: the ancestor mask, node j in bit j % 32 of word j // 32.

        A node sees what its parent sees, and itself.  Parents come first, so one pass over the nodes is enough; the
        sets are Python's integers, whose bits have no limit.
        """
        seen = [1]  # by node: bit j is set where node j is seen; the root sees itself
        for node, parent in enumerate(self.parents[1:].tolist(), start=1):
            seen.append(seen[parent] | 1 << node)
        words = -(-len(self) // 32)
        data = bytearray()
        for bits in seen:
            data += bits.to_bytes(4 * words, "little")
        return np.frombuffer(data, "<u4").reshape(len(self), words)

    def path_to(self, node: int) -> list[int]:
        """Node indices from the root to `node`, both included."""
        path = [node]
        while path[-1] > 0:
            path.append(int(self.parents[path[-1]]))
        return path[::-1]


def accept(tree: DraftTree, target_token_ids: Sequence[int] | NDArray[np.integer]) -> list[int]:
    """Node indices of the longest path that agrees with the target, root first.

    target_token_ids: (N,) the token the target chose (argmax or sample) after each node.

    The acceptance length tau is len(result); the new bonus token is target_token_ids[result[-1]].
    Every emitted token is the target's own choice given its prefix, so the output is the
    target's, whatever the tree was.
    """
    places = zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True)
    children = {place: node for node, place in enumerate(places) if node}  # the tokens of siblings differ
    path = [0]
    while (child := children.get((path[-1], int(target_token_ids[path[-1]])))) is not None:
        path.append(child)
    return path
