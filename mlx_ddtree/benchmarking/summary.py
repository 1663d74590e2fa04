"""From a run's lines to its figures: speedup with its uncertainty, acceptance length, time by stage."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.benchmarking.record import RunLine, read_run
from mlx_ddtree.benchmarking.settings import STOCK, method_of, size_of

RESAMPLES = 2000
STAGES = ("draft", "tree", "verify", "commit")
HOST_TIMES = ("main", "exposed")


@dataclass(frozen=True)
class Cell:
    """One setting on one data set at one temperature.

    tau: tokens a round.
    tps: tokens a second of generation.
    speedup: the baseline's seconds a token over this setting's, on the same prompts in the same run.
    low, high: its 95 % interval, from resampling prompts; None for fewer than two prompts.
    identical, compared: answers that had the tokens they should have (None: nothing to compare with), and all.
    stages: milliseconds a token.
    host: milliseconds a token of the host (host_time.py): 'main', and 'exposed' where it can be measured; empty for
        runs of versions that did not.
    accepted: rounds by accepted nodes.
    """

    data: str
    temp: float
    setting: str
    prompts: int
    tokens: int
    tau: float
    tps: float
    speedup: float
    low: float | None
    high: float | None
    identical: int | None
    compared: int
    stages: dict[str, float]
    host: dict[str, float]
    accepted: dict[int, int]


@dataclass(frozen=True)
class Summary:
    """A run. `cells` in the order in which things were measured, settings as in the header."""

    header: dict[str, Any]
    cells: list[Cell]
    halves: list[dict[str, Any]]

    @property
    def model(self) -> str:
        return str(self.header["model"])

    @property
    def places(self) -> list[tuple[str, float]]:
        """The data sets and temperatures."""
        return list(dict.fromkeys((cell.data, cell.temp) for cell in self.cells))

    def at(self, data: str, temp: float) -> list[Cell]:
        return [cell for cell in self.cells if (cell.data, cell.temp) == (data, temp)]

    def as_dict(self) -> dict[str, Any]:
        return {"header": self.header, "cells": [asdict(cell) for cell in self.cells], "halves": self.halves}


def summarise(path: Path) -> Summary:
    """The figures of a run's file, finished or not.  Raises OptionError for what is no run."""
    return summary_of(*read_run(path))


def summary_of(header: dict[str, Any], lines: list[RunLine]) -> Summary:
    """The figures of a run's complete lines."""
    names = list(header["settings"])
    places: dict[tuple[str, float], list[RunLine]] = defaultdict(list)
    for line in lines:
        places[line["data"], line["temp"]].append(line)
    cells = []
    for (data, temp), part in places.items():
        cells += _cells(data, temp, part, names)
    return Summary(header, cells, _repetition_halves(lines, names))


def fastest(cells: Iterable[Cell], keep: Callable[[Cell], bool]) -> Cell | None:
    """The cell with the largest speedup among those that `keep` keeps."""
    return max((cell for cell in cells if keep(cell)), key=lambda cell: cell.speedup, default=None)


def is_sized(method: str) -> Callable[[Cell], bool]:
    """Whether a cell's setting is `method` with a fixed size."""
    return lambda cell: method_of(cell.setting) == method and size_of(cell.setting) is not None


def _cells(data: str, temp: float, lines: list[RunLine], names: list[str]) -> list[Cell]:
    by_setting: dict[str, list[RunLine]] = defaultdict(list)
    for line in lines:
        by_setting[line["setting"]].append(line)
    stock = _totals_by_prompt(by_setting[STOCK])
    return [_cell(data, temp, name, by_setting[name], stock) for name in names if by_setting[name]]


def _cell(data: str, temp: float, name: str, lines: list[RunLine], stock: NDArray[np.float64]) -> Cell:
    totals = _totals_by_prompt(lines)
    low, high = bootstrap_interval(stock, totals)
    tokens, seconds, rounds, turns = totals.sum(axis=0)
    verdicts = [line["identical"] for line in lines if line["identical"] is not None]
    return Cell(
        data=data,
        temp=temp,
        setting=name,
        prompts=len(totals),
        tokens=int(tokens),
        tau=(tokens - turns) / max(rounds, 1),
        tps=tokens / seconds,
        speedup=float(speedups(stock[None], totals[None])[0]),
        low=low,
        high=high,
        identical=sum(verdicts) if verdicts and name != STOCK else None,
        compared=len(verdicts),
        stages=_milliseconds_a_token(lines, "stages", STAGES),
        host=_milliseconds_a_token(lines, "host", HOST_TIMES),
        accepted=_rounds_by_accepted(lines),
    )


def _milliseconds_a_token(lines: Sequence[RunLine], field: str, parts: Sequence[str]) -> dict[str, float]:
    """Sums of a field that holds seconds by part, without parts that no line has; empty where a line has no field."""
    if not all(field in line for line in lines):
        return {}
    tokens = sum(line["tokens"] for line in lines)
    sums = {part: 1000 * sum(line[field].get(part, 0.0) for line in lines) / tokens for part in parts}
    return {part: value for part, value in sums.items() if any(part in line[field] for line in lines)}


def _rounds_by_accepted(lines: Sequence[RunLine]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for line in lines:
        for nodes, rounds in line.get("accepted", {}).items():
            counts[int(nodes)] += rounds
    return dict(sorted(counts.items()))


def _totals_by_prompt(lines: Sequence[RunLine]) -> NDArray[np.float64]:
    """(prompts, 4) tokens, seconds, rounds and turns of every prompt, in the order of its rows; repeats are one
    prompt and count with their median seconds."""
    prompts: dict[tuple[int, str], dict[int, list[RunLine]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        prompts[line["index"], line["digest"]][line["turn"]].append(line)
    totals = []
    for _, turns in sorted(prompts.items()):
        tokens = sum(repeats[0]["tokens"] for repeats in turns.values())
        seconds = sum(median(line["seconds"] for line in repeats) for repeats in turns.values())
        rounds = sum(median(line["rounds"] for line in repeats) for repeats in turns.values())
        totals.append([tokens, seconds, rounds, len(turns)])
    return np.array(totals, np.float64).reshape(-1, 4)


def speedups(stock: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) ratios of totals from (S, prompts, 4): seconds a token of the baseline over ours."""
    stock_sums = stock.sum(axis=1)
    our_sums = ours.sum(axis=1)
    stock_seconds_a_token = stock_sums[:, 1] / stock_sums[:, 0]
    our_seconds_a_token = our_sums[:, 1] / our_sums[:, 0]
    return np.asarray(stock_seconds_a_token / our_seconds_a_token, np.float64)


def bootstrap_interval(stock: NDArray[np.float64], ours: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The bootstrap's 95 % interval of the speedup: prompts are drawn with replacement, both sides alike.

    stock, ours: (prompts, 4) totals.  (None, None) for fewer than two prompts.
    """
    count = len(ours)
    if count < 2:
        return None, None
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    low, high = np.quantile(speedups(stock[drawn], ours[drawn]), [0.025, 0.975])
    return float(low), float(high)


def _repetition_halves(lines: list[RunLine], names: list[str]) -> list[dict[str, Any]]:
    """tau at temperature 0 of a model-free lookup, of the longest block and of the largest tree, on the prompts whose
    answers repeat less and more than the median."""
    shown = [name for name in (_largest("dflash", names), _largest("ddtree", names)) if name is not None]
    answers: dict[tuple[Any, ...], dict[str, RunLine]] = defaultdict(dict)
    for line in lines:
        if not line["temp"] and line["tokens"] > 1:
            answers[line["data"], line["index"], line["turn"]][line["setting"]] = line
    compared = [answer for answer in answers.values() if all(name in answer for name in (STOCK, *shown))]
    compared.sort(key=lambda answer: answer[STOCK]["repeated"])
    if len(compared) < 4 or not shown:
        return []
    half = len(compared) // 2
    return [_repetition_half("fewer", compared[:half], shown), _repetition_half("more", compared[half:], shown)]


def _largest(method: str, names: list[str]) -> str | None:
    """The setting of `method` with the largest fixed size."""
    sized = [name for name in names if method_of(name) == method and size_of(name)]
    return max(sized, key=lambda name: size_of(name) or 0, default=None)


def _repetition_half(name: str, answers: list[dict[str, RunLine]], shown: list[str]) -> dict[str, Any]:
    tokens = 0
    lookup_rounds = 0.0
    for answer in answers:
        drafted = answer[STOCK]["tokens"] - 1
        tokens += drafted
        lookup_rounds += drafted / max(answer[STOCK]["lookup_tau"], 1.0)
    half = {
        "repeats": name,
        "repeated": mean(answer[STOCK]["repeated"] for answer in answers),
        "lookup": tokens / max(lookup_rounds, 1),
    }
    for setting in shown:
        rounds = sum(answer[setting]["rounds"] for answer in answers)
        half[setting] = tokens / max(rounds, 1)
    return half
