"""Seconds of a round on several machines, on paper: compute by memory bandwidth, exchanges by latency and bandwidth.

Usage: python studies/machines/distributed_model.py [--machine-gb-s 819] [--json]

Nothing of it is measured on these machines; docs/distributed.md says what the figures are taken from, and compares the
counts of exchanges with what the package counts.  The target is tensor-parallel in 4 bits; rank 0 drafts, and has the LM
head.  A round verifies `rows` rows and emits as many tokens as the embedded pair's trees of that size do (README.md).
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx_ddtree  # noqa: F401  # isort: skip  (before MLX, for its BLAS)
import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlx_ddtree.hub.public_configs import PUBLIC_CONFIGS
from mlx_ddtree.hub.size import build, tensors, weight_bytes
from mlx_ddtree.target.rank_traffic import RankTraffic
from mlx_ddtree.terminal import table_text
from studies.budget.simulate_machines import STAIRCASES

LLAMA_70B = PUBLIC_CONFIGS["meta-llama/Llama-3.1-8B-Instruct"] | {
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
TARGETS = {
    "Llama-3.3-70B": LLAMA_70B,
    "Qwen3.5-122B-A10B": PUBLIC_CONFIGS["Qwen/Qwen3.5-122B-A10B"],
    "Kimi-K2.5 (1T-A32B)": PUBLIC_CONFIGS["moonshotai/Kimi-K2.5"],
}
EFFICIENCY = 0.75
"""Share of the memory bandwidth that mlx-lm's decoding reaches."""
ACCEPTED = {1: 1.0, 5: 4.08, 9: 5.48, 17: 6.23, 33: 6.66, 65: 7.15}
"""Tokens a round by rows: the embedded pair's, docs/benchmark."""
STAIRS = list(zip(*STAIRCASES["M3 4-bit"], strict=True))


@dataclass(frozen=True)
class Link:
    """Seconds of the smallest collective, and bytes a second each way."""

    name: str
    latency: float
    bandwidth: float


LINKS = [
    Link("10 GbE, TCP ring", 300e-6, 1.1e9),
    Link("Thunderbolt 5, RDMA, 50 us", 50e-6, 5e9),
    Link("Thunderbolt 5, RDMA, 10 us", 10e-6, 5e9),
]


@dataclass(frozen=True)
class Model:
    """What a step reads, in bytes of a 4-bit target: every row's part, the experts', and the head's."""

    layers: int
    hidden: int
    shared: float
    experts: float
    head: float
    expert_count: int
    experts_a_token: int

    @classmethod
    def of(cls, config):
        model, text = build(config), config.get("text_config", config)
        sizes = {name: x.nbytes for name, x in tensors(model).items()}
        total, four = sum(sizes.values()), weight_bytes(config, 4)
        part = {
            kind: sum(n for name, n in sizes.items() if kind in name) for kind in ("switch_mlp", "embed", "lm_head")
        }
        scale = four / total
        return cls(
            text["num_hidden_layers"],
            text["hidden_size"],
            scale * (total - sum(part.values())),
            scale * part["switch_mlp"],
            scale * (part["lm_head"] or part["embed"]),
            text.get("num_experts") or text.get("n_routed_experts") or 1,
            text.get("num_experts_per_tok") or 1,
        )

    @property
    def collectives(self):
        """An all-reduce behind every layer's attention (or recurrence), and one behind its MLP."""
        return 2 * self.layers

    def sent(self, rows, ranks):
        """Bytes that a rank sends for a forward's collectives."""
        payload = self.collectives * rows * self.hidden * 2
        return RankTraffic(ranks, payload_bytes=payload).wire_bytes

    def read(self, rows, ranks):
        """Seconds-worth bytes of a forward on the busiest rank: rank 0."""
        stair = np.interp(rows, *STAIRS)  # a 4-bit product's time in units of one row's
        hit = 1 - (1 - self.experts_a_token / self.expert_count) ** rows
        return (self.shared * stair + self.experts * hit) / ranks + self.head * stair

    @property
    def drafter(self):
        """Bytes of a bf16 drafter of five layers, feed-forward three times as wide as the hidden states."""
        return 5 * 13 * self.hidden**2 * 2


def forward_seconds(model, rows, ranks, link, speed):
    """(reading weights, exchanging) of one forward."""
    exchanging = model.collectives * link.latency + model.sent(rows, ranks) / link.bandwidth
    return model.read(rows, ranks) / speed, exchanging


def rows_of(speed):
    for name, config in TARGETS.items():
        model = Model.of(config)
        for ranks in (2, 4):
            for link in LINKS:
                plain = sum(forward_seconds(model, 1, ranks, link, speed))
                rates = {}
                for rows, tokens in ACCEPTED.items():
                    draft = (model.drafter + model.head) / speed if rows > 1 else 0.0
                    rates[rows] = tokens / (sum(forward_seconds(model, rows, ranks, link, speed)) + draft)
                best = max(rates, key=rates.__getitem__)
                reading, exchanging = forward_seconds(model, best, ranks, link, speed)
                yield {
                    "target": name,
                    "machines": ranks,
                    "link": link.name,
                    "plain tok/s": f"{1 / plain:.1f}",
                    "best rows": best,
                    "tok/s": f"{rates[best]:.1f}",
                    "speedup": f"{rates[best] * plain:.2f}x",
                    "reading ms": f"{1e3 * reading:.0f}",
                    "exchanging ms": f"{1e3 * exchanging:.1f}",
                    "sent MB a round": f"{model.sent(best, ranks) / 1e6:.1f}",
                }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine-gb-s", type=float, default=819, help="memory bandwidth (default: an M3 Ultra's)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    rows = list(rows_of(EFFICIENCY * args.machine_gb_s * 1e9))
    print(json.dumps(rows, indent=1) if args.json else table_text(rows))


if __name__ == "__main__":
    main()
