"""Draft trees: building, masks and the accept walk.  Pure numpy; knows nothing of MLX or models."""

from mlx_ddtree.tree.build import build_tree
from mlx_ddtree.tree.draft_tree import DraftTree, accept

__all__ = ["DraftTree", "accept", "build_tree"]
