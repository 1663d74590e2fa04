"""The work of mlx_ddtree.doctor: facts about the machine, and every kernel beside MLX."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_ddtree import terminal
from mlx_ddtree._home import cache_folder
from mlx_ddtree.kernels.agreement import TOLERANCE, arrays, difference
from mlx_ddtree.kernels.cases import Case, typical_cases
from mlx_ddtree.kernels.guard import first_line
from mlx_ddtree.kernels.metal import launch_on_metal
from mlx_ddtree.machine import machine
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.loading import load_pair
from mlx_ddtree.terminal_bar import Bar
from mlx_ddtree.tuning import store
from mlx_ddtree.tuning.measure import report_of, whole_profile_of
from mlx_ddtree.tuning.reading import ReadingCheck
from mlx_ddtree.tuning.stopwatch import fastest

SECONDS = 0.3
"""How long each side of a timing may take."""


@dataclass(frozen=True)
class Examination:
    """A kernel at one size.

    result: 'ok', 'DISAGREES', or 'does not run: ' and the first line of why.
    error: largest difference from MLX's operations, relative to the largest value; None where it did not run.
    mlx_ms, kernel_ms: milliseconds of a call; None where it was not timed.
    details: all that a kernel raised which does not run.
    """

    kernel: str
    size: str
    result: str
    error: float | None = None
    mlx_ms: float | None = None
    kernel_ms: float | None = None
    details: str | None = None


def examine(args: argparse.Namespace) -> int:
    if args.forget:
        print(f"{store.forget()} profiles removed; each pair is measured again when it is next used", file=sys.stderr)
        return 0
    facts = machine() | {"cache": str(cache_folder())}
    report: dict[str, Any] = {"machine": facts, "setting": os.environ.get("MLX_DDTREE_KERNELS", "auto")}
    if mx.metal.is_available():
        report["kernels"] = [asdict(x) for x in examinations(typical_cases(launch_on_metal), timed=True)]
    else:
        report["kernels"] = None
    if args.pair or args.model or args.draft_model:
        args.method = "ddtree"
        report["pair"] = measured(load_pair(args))
    if args.json:
        print(json.dumps(report))
    else:
        show_report(report)
    return 0 if all(k["result"] == "ok" for k in report["kernels"] or []) else 1


def examinations(cases: Iterable[Case], timed: bool) -> Iterator[Examination]:
    with Bar("kernels", 0, unit="cases") as bar:
        for case in cases:
            yield examination(case, timed)
            bar.advance()


def examination(case: Case, timed: bool) -> Examination:
    """Whether the kernel's results are its reference's, and how long both take."""
    try:
        want = case.reference()
        got = case.kernel()
        error = float(difference(want, got))
    except Exception as failed:  # whatever the compiler or the driver raises is the finding
        why = f"does not run: {first_line(failed)}"
        return Examination(case.name, case.size, why, details=str(failed).strip() or type(failed).__name__)
    agrees = error <= TOLERANCE[case.dtype]
    try:
        times = milliseconds(case) if timed else (None, None)
    except Exception as failed:
        why = f"does not run again: {first_line(failed)}"
        return Examination(case.name, case.size, why, error, details=str(failed).strip())
    return Examination(case.name, case.size, "ok" if agrees else "DISAGREES", error, *times)


def milliseconds(case: Case) -> tuple[float, float]:
    """Milliseconds of the reference and of the kernel, the shortest of several calls of each."""
    runs = {"reference": case.reference, "kernel": case.kernel}
    seconds = fastest({name: partial(_evaluated, run) for name, run in runs.items()}, SECONDS)
    return 1e3 * seconds["reference"], 1e3 * seconds["kernel"]


def _evaluated(run: Callable[[], Any]) -> None:
    mx.eval(arrays(run()))


def measured(pair: Pair) -> dict[str, Any]:
    """What decoding knows of the pair on this machine; all that was not measured before is measured now."""
    names = {name: pair.notes.get(name) for name in ("target", "drafter", "drafter_config")}
    return names | report_of(whole_profile_of(pair))


def show_report(report: Mapping[str, Any]) -> None:
    """The machine, its kernels, and the pair where one was asked for."""
    facts = dict(report["machine"])
    for name in ("memory", "wired_limit"):
        facts[name] = f"{facts[name] / 2**30:.0f} GiB" if facts[name] else None
    facts["cache"] = terminal.short_path(facts["cache"])
    terminal.print_facts("this machine", facts)
    if report["kernels"] is None:
        print("no Metal here: MLX's operations are used in place of the kernels")
    else:
        terminal.print_table([_line(k) for k in report["kernels"]], "kernels")
        for details in _details(report["kernels"]):
            print(details)
        print(f"MLX_DDTREE_KERNELS={report['setting']}; a pair uses what makes its own verifications faster")
    if "pair" in report:
        pair = report["pair"]
        terminal.print_facts("the pair", _pair_facts(pair))
        terminal.print_table(_pair_costs(pair["cost"]))


def _line(kernel: Mapping[str, Any]) -> dict[str, str]:
    timed = kernel["kernel_ms"] is not None
    return {
        "kernel": kernel["kernel"],
        "size": kernel["size"],
        "check": kernel["result"],
        "error": "-" if kernel["error"] is None else f"{kernel['error']:.1e}",
        "MLX ms": f"{kernel['mlx_ms']:.3f}" if timed else "-",
        "kernel ms": f"{kernel['kernel_ms']:.3f}" if timed else "-",
        "speedup": f"{kernel['mlx_ms'] / kernel['kernel_ms']:.2f}x" if timed else "-",
    }


def _details(kernels: Sequence[Mapping[str, Any]]) -> list[str]:
    """The whole of what failing kernels raised, where the table has the first line."""
    return [
        f"{kernel['kernel']}, {kernel['size']}:\n{kernel['details']}"
        for kernel in kernels
        if kernel.get("details") and "\n" in kernel["details"]
    ]


def _pair_facts(pair: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a pair, but for its costs by size."""
    parity = pair["parity"]
    facts = {
        "target": pair["target"],
        "drafter": "/".join(Path(str(pair["drafter"])).parts[-2:]),
        "measured": terminal.short_path(str(pair["profile"])),
        "a step of plain decoding": f"{1e3 * pair['cost']['plain'][0]:.1f} ms",
        "near ties below": f"{parity['rows']:.2g} (rows), {parity['cache']:.2g} (cache)",
    }
    if pair["reading"] is not None:
        facts["its configuration"] = pair["drafter_config"]
        facts["read"] = ReadingCheck.from_dict(pair["reading"]).line
    used = {rows: names for rows, names in pair["kernels"].items() if names}
    facts["kernels in use by rows"] = "  ".join(f"{r}: {', '.join(n)}" for r, n in used.items()) or "none"
    return facts


def _pair_costs(cost: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row for each number of rows: milliseconds of their verification, and of a draft of so many tokens."""
    verify = dict(zip(map(str, cost["rows"]), cost["verify"][0], strict=True))
    draft = {str(block): seconds for block, seconds in cost["draft"].items()}
    columns = {"verify, ms": verify, "draft, ms": draft}
    table = []
    for size in sorted(verify | draft, key=int):
        cells = {name: f"{1e3 * of[size]:.1f}" if size in of else "-" for name, of in columns.items()}
        table.append({"rows": size} | cells)
    return table
