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

from mlx_ddtree.benchmarking.record import Line, read_run
from mlx_ddtree.benchmarking.settings import STOCK, method_of, size_of

RESAMPLES = 2000
STAGES = ("draft", "tree", "verify", "commit")


@dataclass(frozen=True)
class Cell:
    """One setting on one data set at one temperature.

    tau: tokens a round.
    tps: tokens a second of generation.
    speedup: the baseline's seconds a token over this setting's, on the same prompts in the same run.
    low, high: its 95 % interval, from resampling prompts; None for fewer than two prompts.
    identical, compared: answers that had the tokens they should have (None: nothing to compare with), and all.
    stages: milliseconds a token.
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
    header, lines = read_run(path)
    places: dict[tuple[str, float], list[Line]] = defaultdict(list)
    for line in lines:
        places[line["data"], line["temp"]].append(line)
    cells = [
        cell for (data, temp), part in places.items() for cell in _cells(data, temp, part, list(header["settings"]))
    ]
    return Summary(header, cells, _halves(lines, list(header["settings"])))


def best(cells: Iterable[Cell], keep: Callable[[Cell], bool]) -> Cell | None:
    """The fastest of those that `keep` keeps."""
    return max((cell for cell in cells if keep(cell)), key=lambda cell: cell.speedup, default=None)


def is_sized(method: str) -> Callable[[Cell], bool]:
    """Settings of a method with a fixed size."""
    return lambda cell: method_of(cell.setting) == method and size_of(cell.setting) is not None


def _cells(data: str, temp: float, lines: list[Line], names: list[str]) -> list[Cell]:
    stock = _by_prompt([line for line in lines if line["setting"] == STOCK])
    return [
        _cell(data, temp, name, [line for line in lines if line["setting"] == name], stock)
        for name in names
        if any(line["setting"] == name for line in lines)
    ]


def _cell(data: str, temp: float, name: str, lines: list[Line], stock: NDArray[np.float64]) -> Cell:
    totals = _by_prompt(lines)
    low, high = interval(stock, totals)
    tokens, seconds, rounds, turns = totals.sum(axis=0)
    answers = [line["identical"] for line in lines if line["identical"] is not None]
    accepted: Counter[int] = Counter()
    for line in lines:
        accepted.update({int(nodes): count for nodes, count in line.get("accepted", {}).items()})
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
        identical=sum(answers) if answers and name != STOCK else None,
        compared=len(answers),
        stages={
            stage: 1000 * sum(line["stages"][stage] for line in lines) / sum(line["tokens"] for line in lines)
            for stage in STAGES
            if "stages" in lines[0]
        },
        accepted=dict(sorted(accepted.items())),
    )


def _by_prompt(lines: Sequence[Line]) -> NDArray[np.float64]:
    """(prompts, 4) tokens, seconds, rounds and turns of every prompt, in the order of its rows; repeats are one
    prompt and count with their median seconds."""
    repeats: dict[tuple[int, str], dict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        repeats[line["index"], line["digest"]][line["turn"]].append(line)
    rows = [
        [
            sum(turn[0]["tokens"] for turn in turns.values()),
            sum(median(line["seconds"] for line in turn) for turn in turns.values()),
            sum(median(line["rounds"] for line in turn) for turn in turns.values()),
            len(turns),
        ]
        for _, turns in sorted(repeats.items())
    ]
    return np.array(rows, np.float64).reshape(-1, 4)


def speedups(stock: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) ratios of totals from (S, prompts, 4): seconds a token of the baseline over ours."""
    a, b = stock.sum(axis=1), ours.sum(axis=1)
    return np.asarray((a[:, 1] / a[:, 0]) / (b[:, 1] / b[:, 0]), np.float64)


def interval(stock: NDArray[np.float64], ours: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The bootstrap's 95 % interval of the speedup: prompts are drawn with replacement, both sides alike."""
    count = len(ours)
    if count < 2:
        return None, None
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    low, high = np.quantile(speedups(stock[drawn], ours[drawn]), [0.025, 0.975])
    return float(low), float(high)


def _halves(lines: list[Line], names: list[str]) -> list[dict[str, Any]]:
    """tau at temperature 0 of a model-free lookup, of the longest block and of the largest tree, on the prompts whose
    answers repeat less and more than the median."""
    sized = {method: [n for n in names if method_of(n) == method and size_of(n)] for method in ("dflash", "ddtree")}
    shown = [max(found, key=lambda name: size_of(name) or 0) for found in sized.values() if found]
    answers: dict[tuple[Any, ...], dict[str, Line]] = defaultdict(dict)
    for line in lines:
        if not line["temp"] and line["tokens"] > 1:
            answers[line["data"], line["index"], line["turn"]][line["setting"]] = line
    ordered = sorted(answers.values(), key=lambda answer: answer[STOCK]["repeated"])
    if len(ordered) < 4 or not shown:
        return []
    half = len(ordered) // 2
    return [_half(name, part, shown) for name, part in (("fewer", ordered[:half]), ("more", ordered[half:]))]


def _half(name: str, answers: list[dict[str, Line]], shown: list[str]) -> dict[str, Any]:
    tokens = sum(answer[STOCK]["tokens"] - 1 for answer in answers)
    lookup = sum((answer[STOCK]["tokens"] - 1) / max(answer[STOCK]["lookup_tau"], 1.0) for answer in answers)
    repeated = mean(answer[STOCK]["repeated"] for answer in answers)
    taus = {s: tokens / max(sum(answer[s]["rounds"] for answer in answers), 1) for s in shown}
    return {"repeats": name, "repeated": repeated, "lookup": tokens / max(lookup, 1)} | taus
