"""mlx_ddtree.benchmark: measure a pair against stock mlx_lm by the published protocol."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlx_ddtree.benchmarking.prompts import EVERYDAY, HELD_OUT, PUBLISHED
from mlx_ddtree.benchmarking.settings import METHODS
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.options import tree_budget
from mlx_ddtree.programs import arguments, cli, race

EXAMPLES = """\
  mlx_ddtree.benchmark                                          a short run of the embedded pair
  mlx_ddtree.benchmark run --count 50 --max-tokens 160 --report docs/benchmark
  mlx_ddtree.benchmark run --model Qwen/Qwen3-4B --published --cool-down 5 --output runs/qwen3-4b.jsonl
  mlx_ddtree.benchmark run --data my_prompts.jsonl --temps 0 1 --budgets 8 32 auto --methods ddtree
  mlx_ddtree.benchmark report runs/*.jsonl --report reports
  mlx_ddtree.benchmark race --peer z-lab=~/z-lab/bin/python     against other programs, in turns
"""


def make_arguments(program: str = "mlx_ddtree.benchmark") -> argparse.ArgumentParser:
    """The program's options.  program: how it was called."""
    parser = cli.make_parser("Measure a pair against stock mlx_lm on the same prompts.", EXAMPLES, program)
    arguments.add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="measure, or go on with a run; the default", formatter_class=parser.formatter_class
    )
    arguments.add_model_options(run)
    _add_run_options(run)
    report = commands.add_parser("report", help="tables and plots of finished or unfinished runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN.jsonl")
    others = commands.add_parser(
        "race", help="this package and other programs in turns", formatter_class=parser.formatter_class
    )
    race.add_options(others)
    for command in (run, report):
        output = command.add_argument_group("report")
        output.add_argument(
            "--report", type=Path, metavar="DIR", help="write report.md, report.tex, summary.json and plots there"
        )
        output.add_argument("--plots", choices=("svg", "png", "none"), default="svg", help="default: %(default)s")
        output.add_argument("--note", default="", help="a remark for the report, such as what else the machine did")
        arguments.add_json(output)
    for command in (run, report, others):
        arguments.add_output_options(command, "log how models are loaded")
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--published", action="store_true", help="the papers' protocol: ten data sets, T 0 and 1, budgets 16..1024"
    )
    what.add_argument(
        "--data",
        nargs="+",
        metavar="NAME",
        help=f"JSONL files, or: {HELD_OUT} (the embedded pair's default) {EVERYDAY} (others') {' '.join(PUBLISHED)}",
    )
    what.add_argument("--data-dir", type=Path, default=Path("data"), help="has NAME.jsonl (default: %(default)s)")
    what.add_argument("--temps", nargs="+", type=float, metavar="T", help="for rows without one of their own (0)")
    what.add_argument("--count", type=arguments.positive, metavar="N", help="prompts of each data set (8)")
    what.add_argument("--max-tokens", "-m", type=arguments.positive, metavar="N", help="of an answer (160)")
    what.add_argument("--methods", nargs="+", default=list(METHODS), help="default: %(default)s")
    what.add_argument("--budgets", nargs="+", type=tree_budget, metavar="N", help="tree sizes, and auto")
    what.add_argument("--blocks", nargs="+", type=tree_budget, metavar="B", help="linear block sizes, and auto")
    how = parser.add_argument_group("how")
    how.add_argument("--repeats", type=arguments.positive, default=1, help="the median of so many timings counts (1)")
    how.add_argument("--cool-down", type=float, default=0.0, metavar="S", help="rest before every answer, seconds (0)")
    arguments.add_template_arguments(how, {"enable_thinking": False})
    how.add_argument("--output", type=Path, metavar="RUN.jsonl", help="the run; repeated, the command goes on with it")


def main(argv: Sequence[str] | None = None, program: str = "mlx_ddtree.benchmark") -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help", "--version")):
        given.insert(0, "run")
    args = make_arguments(program).parse_args(given)
    shown = [a for a, before in zip(given, ["", *given], strict=False) if "--note" not in (a, before)]
    args.line = shlex.join(["mlx_ddtree.benchmark", *shown])
    return cli.run(_work, args, check=check)


def check(args: argparse.Namespace) -> None:
    """Raise OptionError for options that are out of range."""
    if args.command == "run" and min(args.temps or [0.0]) < 0:
        raise OptionError(f"temperature {min(args.temps)} is negative")
    if args.command == "race" and not (args.temp >= 0 and args.limit > 0):
        raise OptionError("--temp must not be negative, and --limit must be positive")


def _work(args: argparse.Namespace) -> int:
    from mlx_ddtree.programs import measuring, racing  # noqa: PLC0415  (brings MLX)

    return {"run": measuring.measure, "report": measuring.report, "race": racing.race}[args.command](args)


if __name__ == "__main__":
    sys.exit(main())
