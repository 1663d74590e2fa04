"""What a pair needs and what this machine has, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_ddtree.machine import memory, wired_limit

WORKSPACE = 1 << 30
"""For a round's activations and logits, prefill and the allocator's slack: an allowance, not a measurement."""


GIB = 1 << 30


@dataclass(frozen=True)
class Memory:
    """Memory of a machine.

    usable: bytes that models may take.  what: where the number comes from, as the end of a sentence.
    """

    usable: int
    what: str


def machine_memory() -> Memory:
    """What a Mac's GPU may keep resident, physical memory elsewhere."""
    limit = wired_limit()
    if limit is None:
        return Memory(memory(), "physical memory")
    return Memory(limit, "the GPU's wired limit")


def mac_memory(gigabytes: float) -> Memory:
    """What the GPU of a Mac that is sold with so many GB may keep resident, unless its user raises the limit.

    Metal recommends two thirds of the memory of smaller Macs and three quarters from 36 GB on
    (recommendedMaxWorkingSetSize, as programs print it on Macs of 8 to 192 GB).
    """
    share = 3 / 4 if gigabytes >= 36 else 2 / 3
    return Memory(int(gigabytes * GIB * share), f"what the GPU of a Mac with {gigabytes:g} GB may use")


@dataclass(frozen=True)
class Need:
    """Bytes that a pair takes, by parts.

    drafter_is_estimate: the drafter's weights or cache are not known; they are those of a usual drafter for its target.
    """

    weights: int
    cache: int
    drafter: int
    drafter_cache: int
    drafter_is_estimate: bool = False
    workspace: int = WORKSPACE

    @property
    def total(self) -> int:
        """All parts, with the room to work in."""
        return self.weights + self.cache + self.drafter + self.drafter_cache + self.workspace
