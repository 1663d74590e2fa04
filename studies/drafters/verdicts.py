"""How every public drafter's config.json is read: the table of docs/drafters.md.

Usage: python studies/drafters/verdicts.py

The files' contents stand in public_configs.jsonl beside this program.  Their origins:

published   the very file, as a public repository has it
trainer     what a public trainer's code writes for that pair; names and sizes of the pair from its card
quoted      as public integrations, their tests or model cards quote it; some values may differ from the file's
"""

import argparse
import json
from pathlib import Path

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.errors import ConfigError

CONFIGS = Path(__file__).with_name("public_configs.jsonl")


def public_configs() -> list[dict]:
    """[{'name', 'origin', 'config'}, ...]"""
    return [json.loads(line) for line in CONFIGS.read_text(encoding="utf-8").splitlines()]


def verdict(config: dict) -> list[str]:
    """How the file is read, by the table's columns; or why it is refused."""
    try:
        read = DrafterConfig.from_dict(config)
    except ConfigError as error:
        return [f"refused: {error}", "", "", ""]
    windows = "/".join(sorted({"all" if window is None else str(window) for window in read.windows}))
    causal = {0: "no", len(read.causal): "yes"}.get(sum(read.causal), f"{sum(read.causal)} of {len(read.causal)}")
    return [
        f"{read.num_hidden_layers} {read.layers}",
        f"{read.block_size - 1}, from row {read.logits_start}",
        f"{', '.join(map(str, read.target_layer_ids or ()))}",
        f"sees {windows}, causal {causal}; {', '.join(read.extras()) or 'no more'}",
    ]


def table() -> str:
    """Markdown."""
    rows = [[entry["name"], entry["origin"], *verdict(entry["config"])] for entry in public_configs()]
    header = ["drafter", "contents", "layers", "drafts", "taps", "attention, and what it has besides"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(table())
