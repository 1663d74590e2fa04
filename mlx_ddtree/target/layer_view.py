"""What stands for one layer's cache under a draft tree; the kinds are in target/views.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlx_ddtree.kernels.gather_rows import GatherRows, gather_rows


class LayerView:
    """What one layer's cache answers under a tree; `commit_all` for the views of one kind, which share their rows.

    room: nodes of a path, the root included, that one round may commit; None: all.
    """

    room: int | None = None

    @property
    def keys(self) -> mx.array:
        """Nothing.  mlx-lm's pipelines tie what they send to the last cache's keys, so that evaluating caches sends it;
        a verification is evaluated as a whole."""
        return mx.zeros(0)

    @keys.setter
    def keys(self, tied: mx.array) -> None: ...

    @staticmethod
    def commit_all(views: Sequence[Any], path: Sequence[int], gather: GatherRows) -> None:
        raise NotImplementedError

    def commit(self, path: Sequence[int]) -> None:
        """Keep the rows of `path`, node indices with the root first, in path order."""
        self.commit_all([self], path, gather_rows)
