"""The work of mlx_ddtree.benchmark: runs that go on, their tables and reports."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mlx_ddtree import terminal
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
from mlx_ddtree.benchmarking.settings import BLOCKS, BUDGETS, PUBLISHED_BUDGETS, make_settings
from mlx_ddtree.benchmarking.summary import Summary, summarise
from mlx_ddtree.errors import OptionError
from mlx_ddtree.machine import describe, machine
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.loading import load_models
from mlx_ddtree.terminal_bar import LINE_SECONDS, Bar

SHORT: dict[str, Any] = {"temps": [0.0], "count": 8, "max_tokens": 160}


FULL: dict[str, Any] = {"data": list(PUBLISHED), "temps": [0.0, 1.0], "count": 128, "max_tokens": 2048}


FORMAT = 1


def measure(args: argparse.Namespace) -> int:
    """Measure what is missing of the run, then report it."""
    fill_in(args)
    questions = [q for name in args.data for q in load_questions(name, args.data_dir, args.count)]
    pair = load_models(args, args.draft_model)
    settings = make_settings(pair, args.methods, args.blocks, args.budgets)
    bench = Bench(pair, settings, args.max_tokens, args.cool_down, args.chat_template_args)
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
        "template": args.chat_template_args,
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
        with Bar("benchmark", len(missing), unit="prompts", line_seconds=LINE_SECONDS) as bar:
            for number, task in enumerate(missing):
                skipped += not bench.measure(task, number, run)
                bar.advance()
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
            terminal.print_table(settings_table(cells))
        if len(summary.places) > 1:
            print()
            terminal.print_table(speedup_table(summary))
        if summary.halves:
            print()
            terminal.print_table(repetition_table(summary))
        print()
    if len(summaries) > 1 or len(summaries[0].places) > 1:
        terminal.print_table(overview_table(summaries))
    return 0


def plot_prefixes(models: list[str]) -> list[str]:
    """What the plots' files of each run begin with: nothing of a single one, else its model, numbered where several
    runs have the same."""
    if len(models) == 1:
        return [""]
    prefixes = []
    for i, model in enumerate(models):
        number = f"{models[: i + 1].count(model)}-" if models.count(model) > 1 else ""
        prefixes.append(f"{model.replace('/', '--')}-{number}")
    return prefixes


def write_report(summaries: list[Summary], args: argparse.Namespace) -> None:
    folder: Path = args.report
    folder.mkdir(parents=True, exist_ok=True)
    plots: list[Path] = []
    if args.plots != "none":
        for summary, prefix in zip(summaries, plot_prefixes([s.model for s in summaries]), strict=True):
            plots += draw_plots(summary, folder, prefix, args.plots)
    (folder / "report.md").write_text(markdown_report(summaries, plots, args.line, args.note), encoding="utf-8")
    (folder / "report.tex").write_text(latex_report(summaries), encoding="utf-8")
    summary_json = json.dumps([summary.as_dict() for summary in summaries], indent=1)
    (folder / "summary.json").write_text(summary_json + "\n", encoding="utf-8")
    print(f"report: {folder / 'report.md'}", file=sys.stderr)
