"""JSON Lines that nobody has checked: every line becomes an object, or an error that names the file and the line."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.untrusted import read_json, unreadable

Row = dict[str, Any]


def read_rows(path: Path, error: type[MlxDdtreeError]) -> list[tuple[str, Row]]:
    """Every line of a JSONL file that is not blank, as ('file:line', its object).

    Raises `error` for a file that cannot be read and for what `parse_row` refuses.
    """
    return rows_of(read_bytes(path, error).split(b"\n"), path, error)


def rows_of(lines: list[bytes], path: Path, error: type[MlxDdtreeError]) -> list[tuple[str, Row]]:
    """The rows of a file's lines, the first of which is line 1; blank lines count and are left out."""
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{path}:{number}"
            rows.append((place, parse_row(line, place, error)))
    return rows


def read_bytes(path: Path, error: type[MlxDdtreeError]) -> bytes:
    """A file's content.  Raises `error` with the system's reason."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise error(f"{path} {unreadable(problem)}") from None


def parse_row(line: bytes, place: str, error: type[MlxDdtreeError]) -> Row:
    """The JSON object in a line of UTF-8.

    place: what the message begins with.

    Raises `error` for what `untrusted.read_json` refuses: no UTF-8, no JSON, no object, nesting, numbers and text that
    nothing else can take.
    """
    return read_json(line.removeprefix(codecs.BOM_UTF8), name=place, error=error)
