"""How a call's rounds draft and how they choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from mlx_lm.sample_utils import LogitsProcessor

from mlx_ddtree.budget.profile import TRUSTING, ParityBounds
from mlx_ddtree.budget.suffixes import SuffixIndex
from mlx_ddtree.decoding.sampler import MlxLmSampler, Sampler, is_greedy

Auto = Literal["auto"]


@dataclass(frozen=True)
class RoundPlan:
    """How to draft and how to choose; the same for every round of a call.

    method: 'ar' drafts nothing, 'dflash' a linear block, 'ddtree' a tree of `tree_budget` nodes.
    block_size: tokens of a block, root included; None lets every round choose.
    tree_budget: 'auto' lets every round choose.
    parity: margins between the two best logits below which a choice is decided again (decoding/parity.py);
        0 trusts it.
    memory: earlier texts, whose continuations are proposed again where this one repeats them.
    """

    method: str
    block_size: int | None
    tree_budget: int | Auto
    sampler: Sampler | MlxLmSampler
    processors: Sequence[LogitsProcessor] = ()
    parity: ParityBounds = TRUSTING
    memory: Sequence[SuffixIndex] = ()

    @property
    def adaptive(self) -> bool:
        return self.tree_budget == "auto"

    @cached_property
    def takes_the_best(self) -> bool:
        """Whether a choice is the argmax of the model's own logits."""
        return not self.processors and is_greedy(self.sampler)

    def without_draft(self) -> RoundPlan:
        return replace(self, method="ar", tree_budget=0)
