"""A run's file: a header that says what it measures, then a line for every answer; it can be continued."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.errors import OptionError

Line = dict[str, Any]
Key = tuple[str, float, int, str, int]
"""(data set, temperature, row, digest of its text, repeat): what is answered by every setting in one go."""


def key_of(line: Line) -> Key:
    return line["data"], line["temp"], line["index"], line["digest"], line["repeat"]


def group_key(question: Question, temp: float, repeat: int) -> Key:
    return question.data, temp, question.index, question.digest, repeat


def read_run(path: Path) -> tuple[dict[str, Any], list[Line]]:
    """The header, and the lines of every group that is complete: all settings, all turns.

    What an interrupted run left of a group is not used: its answers would not have met the same machine.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror}") from None
    parsed = [_parse(path, i, text, last=i == len(texts) - 1) for i, text in enumerate(texts)]
    rows = [row for row in parsed if row is not None]
    if not rows or "settings" not in rows[0]:
        raise OptionError(f"{path} is no benchmark run: its first line should say what it measures")
    header, lines = rows[0], {(key_of(row), row["turn"], row["setting"]): row for row in rows[1:]}
    counts = Counter(key for key, _, _ in lines)
    whole = [line for (key, _, _), line in lines.items() if counts[key] == line["turns"] * len(header["settings"])]
    return header, whole


def _parse(path: Path, index: int, text: str, last: bool) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except ValueError:
        row = None
    if isinstance(row, dict):
        return row
    if last and index:  # cut off in the middle of writing
        return None
    raise OptionError(f"{path}, line {index + 1} is not JSON: no benchmark run, or damaged")


class RunFile:
    """A run's file, opened to be continued.

    header: what must not change within a run.
    done: the groups that it has already.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.done: set[Key] = set()
        if path.exists() and path.stat().st_size:
            found, lines = read_run(path)
            _check(path, found, header)
            self.done = {key_of(line) for line in lines}
            _end_at_a_line(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write([header])

    def append(self, lines: Sequence[Line]) -> None:
        """A whole group, safe on the disk when this returns."""
        self._write(lines)
        self.done.add(key_of(lines[0]))

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())


def _check(path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(header))
    different = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if different:
        raise OptionError(
            f"{path} was measured with another {' and '.join(different)}; a run is one thing on one machine: "
            "give another --output, or remove the file"
        )


def _end_at_a_line(path: Path) -> None:
    """Cut what was being written when the run was killed."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
