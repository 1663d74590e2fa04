"""JSON from outside: every file, line and request that this package has not just written itself is read here.

Python's parser accepts more than the rest of a program can bear: nesting that exhausts the stack later, integers that
no array holds, text that cannot be printed, numbers that are none.  One function refuses all of that with one line.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mlx_ddtree.errors import ConfigError, MlxDdtreeError

MOST_BYTES = 64 << 20
MOST_LEVELS = 64
"""Objects and lists inside each other.  Configs use 5, schemas of tools 20."""
MOST_DIGITS = 40
INTEGERS = range(-(2**63), 2**64)
"""What a signed or an unsigned integer of 64 bits holds."""


def read_json(
    source: Path | str | bytes,
    *,
    name: str | None = None,
    most_bytes: int = MOST_BYTES,
    finite: bool = True,
    error: type[MlxDdtreeError] = ConfigError,
) -> dict[str, Any]:
    """The JSON object in a file (Path) or in a text (str, or bytes in UTF-8).

    name: what messages call the source; a file's path if left out.
    most_bytes: a longer file or text is refused before it is parsed.
    finite: refuse NaN and infinities.  Configs of some models (Mamba 2) hold Infinity.
    error: the class of what is raised.

    Whole numbers outside 64 bits come back as floats, so an int always fits one of MLX's or NumPy's types.  No string
    holds half a surrogate pair, so all can be encoded.  Objects and lists are nested MOST_LEVELS deep at most.

    Raises `error` with one line that begins with `name`.
    """
    if name is None:
        name = str(source) if isinstance(source, Path) else "this JSON"
    try:
        text = _text_of(source, most_bytes)
        value = json.loads(text, parse_int=_integer)
        fault = _first_fault(value, finite)
    except OSError as problem:
        raise error(f"{name} {unreadable(problem)}") from None
    except RecursionError:
        raise error(f"{name} is nested too deeply (more than {MOST_LEVELS} levels)") from None
    except (UnicodeError, json.JSONDecodeError) as problem:
        raise error(f"{name} is not valid JSON: {problem}") from None
    except ValueError as problem:
        raise error(f"{name} {problem}") from None
    if fault is not None:
        raise error(f"{name} {fault}")
    if not isinstance(value, dict):
        raise error(f"{name} does not hold a JSON object")
    return value


def read_text(file: Path, *, name: str, most_bytes: int, error: type[MlxDdtreeError] = ConfigError) -> str:
    """A file's text, UTF-8.  Raises `error` with one line that begins with `name`."""
    try:
        return _text_of(file, most_bytes)
    except OSError as problem:
        raise error(f"{name} {unreadable(problem)}") from None
    except UnicodeError:
        raise error(f"{name} is not UTF-8 text") from None
    except ValueError as problem:
        raise error(f"{name} {problem}") from None


def unreadable(problem: OSError) -> str:
    """What is said of a file that cannot be read, behind its name."""
    if isinstance(problem, FileNotFoundError):
        return "does not exist"
    return f"cannot be read: {problem.strerror or problem}"


def _text_of(source: Path | str | bytes, most_bytes: int) -> str:
    """Raises OSError, UnicodeError, and ValueError where the source is too large or no ordinary file."""
    if isinstance(source, Path):
        if source.exists() and not source.is_file():  # a pipe or a device would be read for ever
            raise ValueError("is not a file")
        with source.open("rb") as file:
            source = file.read(most_bytes + 1)
    if len(source) > most_bytes:
        raise ValueError(f"is larger than {most_bytes:,} bytes")
    return source if isinstance(source, str) else source.decode("utf-8")


def _integer(digits: str) -> int | float:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"holds a number of {len(digits):,} digits")
    value = int(digits)
    return value if value in INTEGERS else float(value)


def _first_fault(value: Any, finite: bool) -> str | None:
    """What is wrong inside a parsed value, or None; level by level, since recursion is what deep nesting breaks."""
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.keys())
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, str) and not _is_encodable(item):
                return "holds half a surrogate pair (\\ud800 to \\udfff), which is no text"
            elif isinstance(item, float) and finite and not math.isfinite(item):
                return f"holds {item}, which is no number"
        if not deeper:
            return None
        level = deeper
    return f"is nested too deeply (more than {MOST_LEVELS} levels)"


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
