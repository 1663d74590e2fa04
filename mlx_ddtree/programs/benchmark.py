"""mlx_ddtree.benchmark: measure a pair against stock mlx_lm by the published protocol."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mlx_ddtree.benchmarking.bench import SEED, Bench, Task
from mlx_ddtree.benchmarking.plots import draw_plots
from mlx_ddtree.benchmarking.prompts import EVERYDAY, HELD_OUT, PUBLISHED, Question, load_questions
from mlx_ddtree.benchmarking.record import RunFile, group_of_question
from mlx_ddtree.benchmarking.report import (
    latex_report,
    markdown_report,
    overview_table,
    place_title,
    repetition_table,
    settings_table,
    speedup_table,
)
from mlx_ddtree.benchmarking.settings import BLOCKS, BUDGETS, METHODS, PUBLISHED_BUDGETS, make_settings
from mlx_ddtree.benchmarking.summary import Summary, summarise
from mlx_ddtree.distributed.load import load
from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.options import tree_budget
from mlx_ddtree.machine import __version__, describe, machine
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import arguments, cli, race

EXAMPLES = """\
  mlx_ddtree.benchmark                                          a short run of the embedded pair
  mlx_ddtree.benchmark run --count 50 --max-tokens 160 --report docs/benchmark
  mlx_ddtree.benchmark run --model Qwen/Qwen3-4B --published --cool-down 5 --output runs/qwen3-4b.jsonl
  mlx_ddtree.benchmark run --data my_prompts.jsonl --temps 0 1 --budgets 8 32 auto --methods ddtree
  mlx_ddtree.benchmark report runs/*.jsonl --report reports
  mlx_ddtree.benchmark race --peer z-lab=~/z-lab/bin/python     against other programs, in turns
"""
SHORT: dict[str, Any] = {"temps": [0.0], "count": 8, "max_tokens": 160}
FULL: dict[str, Any] = {"data": list(PUBLISHED), "temps": [0.0, 1.0], "count": 128, "max_tokens": 2048}
FORMAT = 1


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        "Measure a pair against stock mlx_lm on the same prompts.", EXAMPLES, "mlx_ddtree.benchmark"
    )
    parser.add_argument("--version", action="version", version=__version__)
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
        output.add_argument("--json", action="store_true", help="print the summary as one JSON object")
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
    what.add_argument("--max-tokens", type=arguments.positive, metavar="N", help="of an answer (160)")
    what.add_argument("--methods", nargs="+", default=list(METHODS), help="default: %(default)s")
    what.add_argument("--budgets", nargs="+", type=tree_budget, metavar="N", help="tree sizes, and auto")
    what.add_argument("--blocks", nargs="+", type=tree_budget, metavar="B", help="linear block sizes, and auto")
    how = parser.add_argument_group("how")
    how.add_argument("--repeats", type=arguments.positive, default=1, help="the median of so many timings counts (1)")
    how.add_argument("--cool-down", type=float, default=0.0, metavar="S", help="rest before every answer, seconds (0)")
    how.add_argument(
        "--chat-template-config",
        type=arguments.json_object,
        default={"enable_thinking": False},
        help="('{\"enable_thinking\": false}')",
    )
    how.add_argument("--output", type=Path, metavar="RUN.jsonl", help="the run; repeated, the command goes on with it")
    how.add_argument("--verbose", "-v", action="store_true", help="log how models are loaded")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "run")
    args = make_arguments().parse_args(arguments)
    shown = [a for a, before in zip(arguments, ["", *arguments], strict=False) if "--note" not in (a, before)]
    args.line = shlex.join(["mlx_ddtree.benchmark", *shown])
    return cli.run({"run": measure, "report": report, "race": race.race}[args.command], args)


def measure(args: argparse.Namespace) -> int:
    """Measure what is missing of the run, then report it."""
    fill_in(args)
    questions = [q for name in args.data for q in load_questions(name, args.data_dir, args.count)]
    pair = load(
        args.model,
        args.draft_model,
        revision=args.revision,
        draft_revision=args.draft_revision,
        adapter_path=args.adapter_path,
        trust_remote_code=args.trust_remote_code,
        draft_window=args.draft_window,
    )
    settings = make_settings(pair, args.methods, args.blocks, args.budgets)
    bench = Bench(pair, settings, args.max_tokens, args.cool_down, args.chat_template_config)
    with RunFile(args.output, header(args, pair, list(settings))) as run:
        missing = []
        for task in tasks(questions, args):
            if group_of_question(task.question, task.temp, task.repeat) not in run.done:
                missing.append(task)
        if missing:
            measure_all(bench, missing, run)
        elif run.done:
            print(f"{args.output} is complete; remove it to measure again", file=sys.stderr)
    return show([summarise(args.output)], args)


def fill_in(args: argparse.Namespace) -> None:
    """Defaults that depend on --published and on the model."""
    for name, value in (FULL if args.published else SHORT).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.data is None:
        args.data = [HELD_OUT if args.model is None else EVERYDAY]
    if args.budgets is None:
        args.budgets = list(PUBLISHED_BUDGETS if args.published else BUDGETS)
    if args.blocks is None and not args.published:
        args.blocks = list(BLOCKS)
    if min(args.temps) < 0:
        raise OptionError(f"temperature {min(args.temps)} is negative")
    if args.output is None:
        args.output = Path("benchmark") / f"{model_name(args).replace('/', '--')}.jsonl"


def model_name(args: argparse.Namespace) -> str:
    return args.model.strip("./") if args.model else "embedded"


def header(args: argparse.Namespace, pair: Pair, settings: list[str]) -> dict[str, Any]:
    """What must stay as it is when a run goes on; data sets, temperatures, counts and repeats may be added."""
    folders = {
        key: Path(pair.notes[f"{key}_folder"]).name for key in ("target", "drafter") if f"{key}_folder" in pair.notes
    }  # a revision's commit
    return {
        "format": FORMAT,
        "model": model_name(args),
        "drafter": args.draft_model or (pair.notes.get("drafter") if args.model else "embedded"),
        "folders": folders,
        "adapters": args.adapter_path,
        "settings": settings,
        "max_tokens": args.max_tokens,
        "cool_down": args.cool_down,
        "template": args.chat_template_config,
        "seed": SEED,
        "machine": machine(),
    }


def tasks(questions: list[Question], args: argparse.Namespace) -> list[Task]:
    """Every question at every temperature, or at its own; then all once more for every repeat."""
    return [
        Task(question, temp, repeat)
        for repeat in range(args.repeats)
        for question in questions
        for temp in ([question.temp] if question.temp is not None else args.temps)
    ]


def measure_all(bench: Bench, missing: list[Task], run: RunFile) -> None:
    skipped = 0
    bench.warm_up(missing[0])
    try:
        for number, task in enumerate(tqdm(missing, unit="prompt", file=sys.stderr)):
            skipped += not bench.measure(task, number, run)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on with {run.path}", file=sys.stderr)
        raise
    if skipped:
        print(f"{skipped} prompts did not fit into the model's context and were left out", file=sys.stderr)


def report(args: argparse.Namespace) -> int:
    return show([summarise(path) for path in args.runs], args)


def show(summaries: list[Summary], args: argparse.Namespace) -> int:
    """Print the tables or the JSON, and write what --report asks for."""
    if not any(summary.cells for summary in summaries):
        raise OptionError("nothing was measured yet")
    if args.report:
        write_report(summaries, args)
    if args.json:
        print(json.dumps([summary.as_dict() for summary in summaries]))
        return 0
    for summary in summaries:
        print(f"{summary.model}; {describe(summary.header['machine'])}")
        for data, temp in summary.places:
            cells = summary.at(data, temp)
            print(f"\n{place_title(data, temp)}: {cells[0].prompts} prompts, {cells[0].tokens} tokens")
            print(cli.columns(settings_table(cells)))
        if len(summary.places) > 1:
            print(f"\n{cli.columns(speedup_table(summary))}")
        if summary.halves:
            print(f"\n{cli.columns(repetition_table(summary))}")
        print()
    if len(summaries) > 1 or len(summaries[0].places) > 1:
        print(cli.columns(overview_table(summaries)))
    return 0


def write_report(summaries: list[Summary], args: argparse.Namespace) -> None:
    folder: Path = args.report
    folder.mkdir(parents=True, exist_ok=True)
    plots: list[Path] = []
    for summary in summaries if args.plots != "none" else []:
        prefix = f"{summary.model.replace('/', '--')}-" if len(summaries) > 1 else ""
        plots += draw_plots(summary, folder, prefix, args.plots)
    (folder / "report.md").write_text(markdown_report(summaries, plots, args.line, args.note), encoding="utf-8")
    (folder / "report.tex").write_text(latex_report(summaries), encoding="utf-8")
    summary_json = json.dumps([summary.as_dict() for summary in summaries], indent=1)
    (folder / "summary.json").write_text(summary_json + "\n", encoding="utf-8")
    print(f"report: {folder / 'report.md'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
