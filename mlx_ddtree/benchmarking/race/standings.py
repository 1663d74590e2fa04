"""From a race's turns to its table: ratios to stock mlx_lm, time a round, tokens a round, identical answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median
from typing import Any

from mlx_ddtree.benchmarking.race.record import Turn, kinds_of
from mlx_ddtree.benchmarking.settings import STOCK

Answer = Mapping[str, Any]
Table = list[dict[str, str]]


@dataclass(frozen=True)
class Standing:
    """How one entrant did, on the turns that it answered.

    ratio: stock's seconds a token over this entrant's, geometric mean over prompts; a prompt's median turn counts.
    by_kind: the ratio of each kind of prompt.
    total: tokens a second in all, over stock's.
    round_ms: milliseconds a round.
    tau: tokens a round.
    first_ms: milliseconds from the question to the first token, median.
    identical, compared: answers with stock's tokens, and answers at temperature 0.
    failure: why it is out, or None.

    Figures are None where nothing was answered.
    """

    name: str
    prompts: int
    ratio: float | None
    by_kind: dict[str, float | None]
    total: float | None
    round_ms: float | None
    tau: float | None
    first_ms: float | None
    identical: int
    compared: int
    failure: str | None


def standings_of(names: Iterable[str], turns: Sequence[Turn], failures: Mapping[str, str]) -> list[Standing]:
    """The entrants' standings, in the order of their names."""
    kinds = kinds_of(turns)
    return [_standing(name, turns, kinds, failures.get(name)) for name in names]


def _standing(name: str, turns: Sequence[Turn], kinds: Sequence[str], failure: str | None) -> Standing:
    answered = [turn for turn in turns if name in turn.answers and _is_timed(turn.answers[name])]
    answered = [turn for turn in answered if _is_timed(turn.answers[STOCK])]
    ratios = _ratios_by_prompt(name, answered)
    kind_of = {turn.digest: turn.kind for turn in answered}
    by_kind = {kind: _mean(ratio for prompt, ratio in ratios.items() if kind_of[prompt] == kind) for kind in kinds}
    answers = [turn.answers[name] for turn in answered]
    verdicts = [answer["identical"] for answer in answers if "identical" in answer]
    rounds = sum(answer["rounds"] for answer in answers)
    seconds = sum(_seconds(answer) for answer in answers)
    return Standing(
        name=name,
        prompts=len(ratios),
        ratio=_mean(ratios.values()),
        by_kind=by_kind,
        total=_total_ratio(name, answered),
        round_ms=1e3 * seconds / rounds if rounds else None,
        tau=sum(answer["tokens"] - 1 for answer in answers) / rounds if rounds else None,
        first_ms=1e3 * median(answer["first"] for answer in answers) if answers else None,
        identical=sum(verdicts),
        compared=len(verdicts),
        failure=failure,
    )


def _ratios_by_prompt(name: str, turns: Sequence[Turn]) -> dict[str, float]:
    """{prompt's digest: ratio of the medians over its turns}."""
    ours = defaultdict(list)
    stock = defaultdict(list)
    for turn in turns:
        ours[turn.digest].append(_seconds_a_token(turn.answers[name]))
        stock[turn.digest].append(_seconds_a_token(turn.answers[STOCK]))
    return {prompt: median(stock[prompt]) / median(ours[prompt]) for prompt in ours}


def _total_ratio(name: str, turns: Sequence[Turn]) -> float | None:
    if not turns:
        return None
    speeds = []
    for entrant in (name, STOCK):
        tokens = sum(turn.answers[entrant]["tokens"] - 1 for turn in turns)
        speeds.append(tokens / sum(_seconds(turn.answers[entrant]) for turn in turns))
    return speeds[0] / speeds[1]


def _is_timed(answer: Answer) -> bool:
    """Whether there were tokens after the first; time is counted from that one, as mlx-lm does."""
    return answer["tokens"] > 1 and answer["seconds"] > answer["first"]


def _seconds(answer: Answer) -> float:
    return float(answer["seconds"] - answer["first"])


def _seconds_a_token(answer: Answer) -> float:
    return _seconds(answer) / (answer["tokens"] - 1)


def _mean(ratios: Iterable[float]) -> float | None:
    values = list(ratios)
    return geometric_mean(values) if values else None


def table_of(standings: Sequence[Standing]) -> Table:
    """A row for every entrant that has answered something."""
    rows = []
    for standing in standings:
        if standing.ratio is None:
            continue
        row = {"entrant": standing.name, "all": _text(standing.ratio)}
        row |= {kind: _text(ratio) for kind, ratio in standing.by_kind.items()}
        row |= {"total": _text(standing.total), "ms a round": _text(standing.round_ms, 1), "tau": _text(standing.tau)}
        row |= {"first ms": _text(standing.first_ms, 0), "identical": f"{standing.identical}/{standing.compared}"}
        if not standing.compared:
            row["identical"] = "-"
        rows.append(row)
    return rows


def _text(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
