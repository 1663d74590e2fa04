"""One synthetic training dialogue of the demo target, the checks every one must pass, and the data that they are made from."""

import ast
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

DATA = Path(__file__).parent / "tasks"

Row = dict[str, str]


@dataclass(frozen=True)
class Task:
    """A request and its answer.

    key: what is asked, whatever the wording ("aggregate/sum/even"); a key is held out as a whole.
    prompt: the user's words.
    code: the Python source that answers it (no fences).
    intro, outro: a sentence before and after the code; may be empty.
    check: statements that raise when `code` is wrong; run after `code` in the same namespace.
    """

    key: str
    prompt: str
    code: str
    intro: str = ""
    outro: str = ""
    check: str = ""

    @property
    def answer(self) -> str:
        parts = [self.intro, f"```python\n{self.code.strip()}\n```", self.outro]
        return "\n\n".join(part for part in parts if part)

    def verify(self) -> None:
        """Raise if the code does not parse, does not run, or fails its check."""
        ast.parse(self.code)
        namespace: dict[str, object] = {"__name__": "task"}
        exec(compile(self.code, self.key, "exec"), namespace)
        exec(compile(self.check, self.key, "exec"), namespace)


Family = Callable[[Random], Task]


def read_data(name: str) -> dict[str, Any]:
    """The wordings, tables and templates of tasks/NAME.toml."""
    return tomllib.loads((DATA / f"{name}.toml").read_text(encoding="utf-8"))


def read_blocks(name: str, separator: str) -> list[str]:
    """The templates of tasks/NAME.txt, one a block."""
    return (DATA / f"{name}.txt").read_text(encoding="utf-8").strip().split(separator)


def read_rows(table: dict[str, str]) -> list[Row]:
    """A table of tasks/*.toml: `columns`, and `rows` of as many cells, a line each, with " | " between them."""
    names = table["columns"].split()
    rows = []
    for line in table["rows"].strip().splitlines():
        cells = (cell.strip() for cell in line.split("|"))
        rows.append(dict(zip(names, cells, strict=True)))
    return rows
