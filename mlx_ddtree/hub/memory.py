"""What a pair needs and what this machine has, in bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass

import mlx.core as mx

WORKSPACE = 1 << 30
"""For a round's activations and logits, prefill and the allocator's slack: an allowance, not a measurement."""


@dataclass(frozen=True)
class Memory:
    """usable: what models may take; what: where the number comes from."""

    usable: int
    what: str


def machine_memory() -> Memory:
    """Metal's recommended working set on a Mac, physical memory elsewhere."""
    recommended = mx.device_info().get("max_recommended_working_set_size")
    if recommended:
        return Memory(int(recommended), "Metal's recommended working set")
    return Memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "physical memory")


@dataclass(frozen=True)
class Need:
    """Parts of an estimate; drafter and drafter_cache are None where the drafter's size is not known."""

    weights: int
    cache: int
    drafter: int | None
    drafter_cache: int | None
    workspace: int = WORKSPACE

    @property
    def total(self) -> int:
        """Unknown parts count nothing."""
        return self.weights + self.cache + (self.drafter or 0) + (self.drafter_cache or 0) + self.workspace
