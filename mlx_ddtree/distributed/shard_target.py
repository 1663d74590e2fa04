"""A target of which this rank has a shard."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.target import TreeTarget


class ShardTarget(TreeTarget):
    """Runs only together with its like on the other ranks: all of them, in the same order.

    With tensor parallelism every rank has all layers, and a part of the heads and channels of each; hidden states
    are whole on all ranks.  In a pipeline a rank has some of the layers, and only their outputs can be tapped there.
    """

    is_whole = False
    builds_ahead = False  # ranks are told a forward's tokens with the forward

    def __init__(self, model: nn.Module, group: mx.distributed.Group, pipeline: bool) -> None:
        self.group = group
        self.pipeline = pipeline
        self.shards = group.size()
        super().__init__(model)

    def share(self, token_ids: mx.array) -> mx.array:
        """Token ids (1, n) that rank 0 knows, on all ranks: the others bring zeros."""
        return mx.distributed.all_sum(token_ids.astype(mx.int32), group=self.group)

    def features(self, hidden: mx.array) -> mx.array | None:
        """In a pipeline the tapped outputs come together on all ranks, behind the forward's own exchanges."""
        if not self.pipeline or not self.taps:
            return super().features(hidden)
        parts = [self.current.outputs.get(i, mx.zeros_like(hidden)) for i in self.taps]
        mine = mx.depends(mx.concatenate(parts, axis=-1), hidden)
        return mx.distributed.all_sum(mine, group=self.group)


def send_off(*arrays: mx.array | None) -> None:
    """Evaluate what a forward exchanges, without waiting for it.

    Ranks must exchange the same in the same order, so exactly this is evaluated on all of them, one after the other;
    what else is computed from it exchanges nothing.
    """
    for array in arrays:
        if array is not None:
            mx.async_eval(array)
