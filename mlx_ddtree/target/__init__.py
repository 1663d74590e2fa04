"""Targets: mlx-lm models that verify draft trees."""

from mlx_ddtree.target.adapter import TreeTarget
from mlx_ddtree.target.anatomy import text_of
from mlx_ddtree.target.make import TREE_FAMILIES, Target, family_of, make_target
from mlx_ddtree.target.paths import PathTarget
from mlx_ddtree.target.plain import PlainTarget

__all__ = ["TREE_FAMILIES", "PathTarget", "PlainTarget", "Target", "TreeTarget", "family_of", "make_target", "text_of"]
