"""mlx_ddtree.doctor: what this machine is, and how every kernel does on it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlx_ddtree.programs import arguments, cli

EXAMPLES = """\
  mlx_ddtree.doctor                                        this machine and its kernels
  mlx_ddtree.doctor --pair --model mlx-community/Qwen3-8B-4bit   and what was measured of a pair
  mlx_ddtree.doctor --json > report.json                   for a bug report
"""


def make_arguments(program: str = "mlx_ddtree.doctor") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    parser = cli.make_parser("Examine this machine: its facts, and every Metal kernel against MLX.", EXAMPLES, program)
    arguments.add_model_options(parser)
    parser.add_argument("--pair", action="store_true", help="also measure a pair: costs, rounding, kernels in use")
    parser.add_argument("--forget", action="store_true", help="remove all that was measured and learned of pairs here")
    arguments.add_json(parser)
    arguments.add_output_options(parser, "log how models are loaded")
    return parser


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.doctor") -> int:
    return cli.run(_work, make_arguments(program).parse_args(argv))


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs.examining import examine  # noqa: PLC0415  (brings MLX)

    return examine(args)


if __name__ == "__main__":
    sys.exit(main())
