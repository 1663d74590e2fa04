"""The trees whose verification is timed and checked."""

from __future__ import annotations

import numpy as np

from mlx_ddtree.tree import DraftTree


def bushy_tree(rows: int, token: int) -> DraftTree:
    """Every node has two children, as far as there are rows; all hold one token."""
    parents = (np.arange(rows) - 1) // 2
    return _of_parents(parents, token)


def chain_of(rows: int, token: int) -> DraftTree:
    """Every node has one child; all hold one token."""
    return _of_parents(np.arange(rows) - 1, token)


def _of_parents(parents: np.ndarray, token: int) -> DraftTree:
    rows = len(parents)
    depths = np.zeros(rows, np.int32)
    for node in range(1, rows):
        depths[node] = depths[parents[node]] + 1
    return DraftTree(np.full(rows, token, np.int32), parents.astype(np.int32), depths, np.zeros(rows, np.float32))
