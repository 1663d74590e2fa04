"""mlx_ddtree.doctor: what this machine is, and how every kernel does on it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlx_ddtree.kernels.agreement import TOLERANCE, arrays, difference
from mlx_ddtree.kernels.cases import Case, typical_cases
from mlx_ddtree.kernels.guard import first_line
from mlx_ddtree.kernels.metal import launch_on_metal
from mlx_ddtree.machine import __version__, machine
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import arguments, cli
from mlx_ddtree.tuning import store
from mlx_ddtree.tuning.measure import report_of, whole_profile_of
from mlx_ddtree.tuning.reading import ReadingCheck
from mlx_ddtree.tuning.stopwatch import fastest

EXAMPLES = """\
  mlx_ddtree.doctor                                        this machine and its kernels
  mlx_ddtree.doctor --pair --model mlx-community/Qwen3-8B-4bit   and what was measured of a pair
  mlx_ddtree.doctor --json > report.json                   for a bug report
"""
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


def make_arguments() -> argparse.ArgumentParser:
    parser = cli.make_parser(
        "Examine this machine: its facts, and every Metal kernel against MLX.", EXAMPLES, "mlx_ddtree.doctor"
    )
    arguments.add_model_options(parser)
    parser.add_argument("--pair", action="store_true", help="also measure a pair: costs, rounding, kernels in use")
    parser.add_argument("--forget", action="store_true", help="remove all that was measured and learned of pairs here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(examine, make_arguments().parse_args(argv))


def examine(args: argparse.Namespace) -> int:
    if args.forget:
        print(f"{store.forget()} profiles removed; each pair is measured again when it is next used", file=sys.stderr)
        return 0
    report: dict[str, Any] = {"machine": machine(), "setting": os.environ.get("MLX_DDTREE_KERNELS", "auto")}
    if mx.metal.is_available():
        report["kernels"] = [asdict(x) for x in examinations(typical_cases(launch_on_metal), timed=True)]
    else:
        report["kernels"] = None
    if args.pair or args.model or args.draft_model:
        args.method = "ddtree"
        report["pair"] = measured(arguments.load_pair(args))
    print(json.dumps(report) if args.json else text(report))
    return 0 if all(k["result"] == "ok" for k in report["kernels"] or []) else 1


def examinations(cases: Iterator[Case], timed: bool) -> Iterator[Examination]:
    for case in tqdm(cases, desc="kernels", unit="case", leave=False, disable=None):
        yield examination(case, timed)


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


def text(report: Mapping[str, Any]) -> str:
    facts = dict(report["machine"])
    for name in ("memory", "wired_limit"):
        facts[name] = f"{facts[name] / 2**30:.0f} GiB" if facts[name] else None
    parts = ["\n".join(f"{name:16} {'-' if value is None else value}" for name, value in facts.items())]
    if report["kernels"] is None:
        parts.append("no Metal here: MLX's operations are used in place of the kernels")
    else:
        parts.append(cli.columns([_line(k) for k in report["kernels"]]))
        parts += _details(report["kernels"])
        parts.append(f"MLX_DDTREE_KERNELS={report['setting']}; a pair uses what makes its own verifications faster")
    if "pair" in report:
        parts.append(_pair_text(report["pair"]))
    return "\n\n".join(parts)


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


def _pair_text(pair: Mapping[str, Any]) -> str:
    cost, parity = pair["cost"], pair["parity"]
    seconds = dict(zip(cost["rows"], cost["verify"][0], strict=True))
    lines = [
        f"{pair['target']} with {pair['drafter']}; kept in {pair['profile']}",
        "verification by rows, ms:  " + "  ".join(f"{rows}: {1e3 * s:.1f}" for rows, s in seconds.items()),
        "draft by block, ms:        " + "  ".join(f"{b}: {1e3 * s:.1f}" for b, s in cost["draft"].items()),
        f"a step of plain decoding:  {1e3 * cost['plain'][0]:.1f} ms",
        f"near ties below:           {parity['rows']:.2g} (rows), {parity['cache']:.2g} (cache)",
    ]
    if pair["reading"] is not None:
        lines.append(f"drafter:                   {pair['drafter_config']}")
        lines.append(f"read                       {ReadingCheck.from_dict(pair['reading']).line}")
    used = {rows: names for rows, names in pair["kernels"].items() if names}
    lines.append("kernels in use by rows:    " + ("  ".join(f"{r}: {', '.join(n)}" for r, n in used.items()) or "none"))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
