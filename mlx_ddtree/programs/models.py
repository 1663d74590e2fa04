"""mlx_ddtree.models: public pairs, their sizes, what fits and what is here; and their download."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

from mlx_ddtree.errors import OptionError, PairError
from mlx_ddtree.hub.cached import cached_models
from mlx_ddtree.hub.catalogue import PublicPair, ask_for_sizes, public_pairs
from mlx_ddtree.hub.fetch import DRAFTER_FILES, TARGET_FILES, commit_of, fetch
from mlx_ddtree.hub.memory import Memory, machine_memory
from mlx_ddtree.hub.registry import find_drafter, find_pairs, resolve
from mlx_ddtree.hub.size import BITS
from mlx_ddtree.machine import __version__
from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.models
  mlx_ddtree.models qwen3.6 --context 32768
  mlx_ddtree.models --fits --memory 24
  mlx_ddtree.models --download mlx-community/Qwen3-8B-4bit
"""
GB = 1e9
EXPLANATION = """
GB that a pair needs with weights of 4, 8 and 16 bits and {context} tokens of context: the target's weights (as
mlx_lm.convert would write them), the drafter's, the KV caches in 16 bits and 1.1 GB to work in.  Brackets: more than
the {usable:.1f} GB of {what}."""
UNKNOWN = """
~: as large as usual drafters for that target; --online asks the Hub for the size."""


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        "List the public pairs of target and drafter, or download one.", EXAMPLES, "mlx_ddtree.models"
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="list pairs whose names hold these")
    parser.add_argument("--fits", action="store_true", help="only those that fit the memory, in 4, 8 or 16 bits")
    parser.add_argument(
        "--context", type=arguments.positive, default=8192, metavar="N", help="tokens (default: %(default)s)"
    )
    parser.add_argument("--memory", type=float, metavar="GB", help="of another machine (default: this one's)")
    parser.add_argument("--online", action="store_true", help="ask the Hub for the sizes of drafters")
    parser.add_argument("--json", action="store_true", help="print one JSON object; sizes in bytes")
    parser.add_argument("--version", action="version", version=__version__)
    group = parser.add_argument_group("download")
    group.add_argument("--download", metavar="NAME", help="fetch this target and its drafter; again: go on")
    group.add_argument("--draft-model", help="another drafter than the known one")
    group.add_argument("--revision", help="branch, tag or commit of the target")
    group.add_argument("--draft-revision", help="branch, tag or commit of the drafter")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(models, make_arguments().parse_args(argv))


def models(args: argparse.Namespace) -> int:
    if args.download:
        if args.words:
            raise OptionError(f"--download takes one name; what is {' '.join(args.words)!r}?")
        return download(args)
    if args.revision or args.draft_revision or args.draft_model:
        raise OptionError("--revision, --draft-revision and --draft-model belong to --download")
    return show(args)


def show(args: argparse.Namespace) -> int:
    found = find_pairs(args.words)
    if not found:
        raise OptionError(f"no public pair's name holds {' and '.join(args.words)}; mlx_ddtree.models lists all")
    memory = machine_memory() if args.memory is None else Memory(int(args.memory * GB), "memory given")
    cached = cached_models()
    asked = ask_for_sizes(drafter for _, drafter in found) if args.online else {}
    pairs = public_pairs(args.words, args.context, memory.usable, cached, asked)
    shown = [pair for pair in pairs if pair.fits or not args.fits]
    if args.json:
        about = {"memory": memory.usable, "memory_source": memory.what, "context": args.context}
        print(json.dumps(about | {"pairs": [pair.as_json() for pair in shown]}))
    elif not shown:
        print(f"none of {len(pairs)} pairs fits {memory.usable / GB:.1f} GB ({memory.what})")
    else:
        rows = [row(pair) for pair in shown]
        print(cli.columns(rows))
        unknown = UNKNOWN if any(r["drafter GB"].startswith("~") for r in rows) else ""
        values = {"context": args.context, "usable": memory.usable / GB, "what": memory.what}
        print(EXPLANATION.format(**values) + unknown)
    return 0


def row(pair: PublicPair) -> Mapping[str, str]:
    """A line for people."""
    computed = {variant.bits: variant for variant in pair.variants if variant.repository is None}
    need = pair.variants[0].need if pair.variants else None
    cells = {"target": pair.target, "drafter": pair.drafter}
    cells["parameters"] = "?" if pair.parameters is None else f"{pair.parameters / 1e9:.1f} B"
    cells["drafter GB"] = "?" if need is None else f"{'~' * need.drafter_is_estimate}{need.drafter / GB:.1f}"
    for bits in BITS:
        variant = computed.get(bits)
        text = "?" if variant is None else f"{variant.need.total / GB:.1f}"
        cells[f"{bits}-bit"] = text if variant is None or variant.fits else f"({text})"
    here = [*(["drafter"] if pair.drafter_here else []), *pair.here]
    return cells | {"here": ", ".join(here) or "-"}


def download(args: argparse.Namespace) -> int:
    target = resolve(args.download)
    drafter = args.draft_model or find_drafter(target)
    if drafter is None:
        raise PairError(f"no public drafter is known for {target}; name one with --draft-model")
    drafter_folder = fetch(drafter, args.draft_revision, DRAFTER_FILES)  # small, and first
    target_folder = fetch(target, args.revision, TARGET_FILES)
    result = {
        "target": target,
        "target_folder": str(target_folder),
        "target_revision": commit_of(target_folder),
        "drafter": drafter,
        "drafter_folder": str(drafter_folder),
        "drafter_revision": commit_of(drafter_folder),
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{target}: {target_folder}\n{drafter}: {drafter_folder}\nuse them with:")
        named = f" --draft-model {drafter}" if args.draft_model else ""
        print(f"  mlx_ddtree.generate --model {target}{named} --prompt ...")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
