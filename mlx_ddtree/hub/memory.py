"""What a pair needs and what this machine has, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_ddtree.machine import memory, wired_limit

WORKSPACE = 1 << 30
"""For a round's activations and logits, prefill and the allocator's slack: an allowance, not a measurement."""


@dataclass(frozen=True)
class Memory:
    """usable: what models may take; what: where the number comes from."""

    usable: int
    what: str


def machine_memory() -> Memory:
    """What a Mac's GPU may keep resident, physical memory elsewhere."""
    limit = wired_limit()
    return Memory(memory(), "physical memory") if limit is None else Memory(limit, "the GPU's wired limit")


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
