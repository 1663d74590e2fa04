"""How the layers of one sequence read their cache in part, and the counts of what they read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlx_ddtree.icecache.options import IceCacheOptions


@dataclass
class Reads:
    """What one paged layer read in the forwards of decoding so far, per KV head.

    layers: how many layers are read in part.
    full: how many attention layers are not.
    forwards: of the target, prompts left out.
    context: context tokens of all these forwards together.
    tokens: context tokens that were read: sinks, pages, window.
    ranked: summaries of pages, or keys, that choosing looked at, averaged over the layers.
    """

    layers: int = 0
    full: int = 0
    forwards: int = 0
    context: int = 0
    tokens: int = 0
    ranked: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Averages of a forward, for JSON."""
        forwards = max(self.forwards, 1)
        return {
            "approximate": True,
            "paged_layers": self.layers,
            "full_layers": self.full,
            "context_tokens": round(self.context / forwards, 1),
            "read_tokens": round(self.tokens / forwards, 1),
            "ranked_rows": round(self.ranked / forwards, 1),
        }

    def line(self) -> str:
        """A sentence for --verbose."""
        mean = self.as_dict()
        return (
            f"KV cache read in part (approximate): {mean['read_tokens']:.0f} of {mean['context_tokens']:.0f} tokens in "
            f"{self.layers} layers, all in {self.full}"
        )


@dataclass
class Reader:
    """What the layers of one sequence share: how they read, and the counts of what was read.

    active: whether rows of decoding read in part now.
    """

    options: IceCacheOptions
    active: bool = False
    reads: Reads = field(default_factory=Reads)

    def reads_part(self, start: int) -> bool:
        """Whether a row behind `start` tokens reads only part of them."""
        return self.active and not self.options.reads_all(start)
