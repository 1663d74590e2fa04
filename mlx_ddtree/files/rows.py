"""JSON Lines that nobody has checked: every line becomes an object, or an error that names the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from mlx_ddtree.errors import MlxDdtreeError

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
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}") from None


def parse_row(line: bytes, place: str, error: type[MlxDdtreeError]) -> Row:
    """The JSON object in a line of UTF-8.

    place: what the message begins with.

    Raises `error` for bytes that are not UTF-8 and for what is not JSON, not an object, nested too deeply, a number of
    thousands of digits, not a finite number, or half of a surrogate pair, which no tokenizer and no file takes.
    """
    try:
        text = line.decode("utf-8-sig")
        row = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{place}: not UTF-8: {problem.reason} at byte {problem.start}") from None
    except UnicodeEncodeError:
        raise error(
            f"{place}: a \\ud800..\\udfff escape stands alone; such halves of a character are no text"
        ) from None
    except RecursionError:
        raise error(f"{place}: nested too deeply") from None
    except ValueError as problem:
        raise error(f"{place}: not valid JSON: {problem}") from None
    if not isinstance(row, dict):
        raise error(f"{place}: not a JSON object")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
