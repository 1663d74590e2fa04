"""Drafters that can propose a part of the target's tokens only: their ids and the target's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx


@dataclass(frozen=True)
class DraftVocabulary:
    """Draft id j is the target's token j + offsets[j] (speculators' `d2t`).

    offsets: (draft ids,) int.  size: the target's tokens.
    """

    offsets: mx.array
    size: int

    @cached_property
    def target_ids(self) -> mx.array:
        """(draft ids,) int32."""
        return mx.arange(self.offsets.shape[0], dtype=mx.int32) + self.offsets.astype(mx.int32)

    def spread(self, values: mx.array, other: float) -> mx.array:
        """Values of the draft ids (..., draft ids) at the places of the target's (..., size), `other` elsewhere."""
        whole = mx.full((*values.shape[:-1], self.size), other, values.dtype)
        whole[..., self.target_ids] = values
        return whole

    def draft_ids(self, token_ids: mx.array) -> mx.array:
        """The draft ids of the target's tokens, of any shape; 0 for tokens that have none."""
        inverse = mx.zeros((self.size,), mx.int32)
        inverse[self.target_ids] = mx.arange(self.offsets.shape[0], dtype=mx.int32)
        return inverse[token_ids]
