"""A run's file: a header that says what it measures, then a line for every answer; it can be continued."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.benchmarking.settings import STOCK
from mlx_ddtree.errors import OptionError
from mlx_ddtree.files.journal import Journal, read_journal
from mlx_ddtree.files.rows import Row

RunLine = dict[str, Any]
"""What one setting did with one turn of one prompt."""
GroupKey = tuple[str, float, int, str, int]
"""(data set, temperature, row, digest of its text, repeat): what is answered by every setting in one go."""

MACHINE_FACTS = ("chip", "cores", "memory", "system", "python", "blas")
"""What a report says of the machine, besides the packages that it knows."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def _is_verdict(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_stages(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(seconds) for seconds in value.values())


def _is_accepted(value: Any) -> bool:
    return isinstance(value, dict) and all(nodes.isdecimal() and _is_count(value[nodes]) for nodes in value)


def _is_machine(value: Any) -> bool:
    return isinstance(value, dict) and all(fact in value for fact in MACHINE_FACTS) and _is_count(value["memory"])


def _is_settings(value: Any) -> bool:
    return isinstance(value, list) and STOCK in value and all(isinstance(name, str) for name in value)


Fields = Mapping[str, Callable[[Any], bool]]
HEADER_FIELDS: Fields = {
    "settings": _is_settings,
    "model": _is_text,
    "max_tokens": _is_count,
    "cool_down": _is_number,
    "machine": _is_machine,
}
LINE_FIELDS: Fields = {
    "data": _is_text,
    "temp": _is_number,
    "index": _is_count,
    "digest": _is_text,
    "repeat": _is_count,
    "turn": _is_count,
    "turns": _is_positive,
    "setting": _is_text,
    "tokens": _is_positive,
    "seconds": _is_number,
    "rounds": _is_count,
    "identical": _is_verdict,
    "repeated": _is_number,
    "lookup_tau": _is_number,
}
DRAFTING_FIELDS: Fields = {"stages": _is_stages, "accepted": _is_accepted, "host": _is_stages}
"""What lines may have besides: those of settings that draft, and of runs that measured the host's time."""


def group_of_line(line: RunLine) -> GroupKey:
    return line["data"], line["temp"], line["index"], line["digest"], line["repeat"]


def group_of_question(question: Question, temp: float, repeat: int) -> GroupKey:
    return question.data, temp, question.index, question.digest, repeat


def read_run(path: Path) -> tuple[dict[str, Any], list[RunLine]]:
    """The header, and the lines of every group that is complete: all settings, all turns.

    What an interrupted run left of a group is not used: its answers would not have met the same machine.

    Raises OptionError, naming the line, for what is no run or damaged.
    """
    rows = read_journal(path, OptionError)
    if not rows:
        raise OptionError(f"{path} is no benchmark run: it is empty, or was killed before anything was measured")
    return check_header(path, rows), complete_lines(path, rows)


def check_header(path: Path, rows: Sequence[tuple[str, Row]]) -> dict[str, Any]:
    """The first row, if it says what a run measures."""
    place, header = rows[0]
    wrong = _wrong_fields(header, HEADER_FIELDS)
    if wrong:
        raise OptionError(
            f"{place}: {path} is no benchmark run: its first line should say what it measures ({', '.join(wrong)})"
        )
    return header


def complete_lines(path: Path, rows: Sequence[tuple[str, Row]]) -> list[RunLine]:
    """The lines behind the header whose group has all settings and turns; of lines of one answer, the last."""
    names = check_header(path, rows)["settings"]
    lines: dict[tuple[GroupKey, int, str], RunLine] = {}
    for place, row in rows[1:]:
        line = _check_line(row, place)
        lines[group_of_line(line), line["turn"], line["setting"]] = line
    found = Counter(group for group, _, _ in lines)
    return [line for (group, _, _), line in lines.items() if found[group] == line["turns"] * len(names)]


def _check_line(row: Row, place: str) -> RunLine:
    given = {name: is_right for name, is_right in DRAFTING_FIELDS.items() if name in row}
    wrong = _wrong_fields(row, {**LINE_FIELDS, **given})
    if wrong:
        raise OptionError(f"{place}: no line of a benchmark run: {', '.join(wrong)} missing or of a wrong kind")
    return row


def _wrong_fields(row: Row, fields: Fields) -> list[str]:
    return [name for name, is_right in fields.items() if name not in row or not is_right(row[name])]


class RunFile:
    """A run's file, opened to be continued; while it is open no other process measures into it.

    header: what must not change within a run.
    done: the groups that it has already.

    Raises OptionError if the file is something else, another run, or open in another process.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.done: set[GroupKey] = set()
        self._journal = Journal(path, OptionError)
        try:
            self._start_or_go_on(header)
        except BaseException:
            self.close()
            raise

    def _start_or_go_on(self, header: dict[str, Any]) -> None:
        rows = self._journal.rows
        if rows:
            _check_same_run(self.path, check_header(self.path, rows), header)
            self.done = {group_of_line(line) for line in complete_lines(self.path, rows)}
        elif json.dumps(header).encode().startswith(self._journal.unfinished):
            self._journal.append([header])  # a new file, or one whose header was being written
        else:
            raise OptionError(f"{self.path} is no benchmark run: give another --output, or remove the file")

    def append(self, lines: Sequence[RunLine]) -> None:
        """A whole group, safe on the disk when this returns."""
        self._journal.append(lines)
        self.done.add(group_of_line(lines[0]))

    def close(self) -> None:
        """Let other processes go on with the run."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def different_keys(found: Mapping[str, Any], header: Mapping[str, Any]) -> list[str]:
    """The keys in which the header that a file has is another one than `header` as JSON would have it, sorted."""
    wanted = json.loads(json.dumps(header))
    return sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))


def _check_same_run(path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
    different = different_keys(found, header)
    if different:
        raise OptionError(
            f"{path} was measured with another {' and '.join(different)}; a run is one thing on one machine: "
            "give another --output, or remove the file"
        )
