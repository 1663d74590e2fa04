"""How programs look at a terminal: tables, facts, errors and bars in mlx-lm's style, by rich.

Where output is no terminal there are no colours and no frames: plain lines, as wide as they need, for files and
other programs.  NO_COLOR takes the colours away at a terminal, too.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from mlx_ddtree.errors import OptionError

if TYPE_CHECKING:  # rich takes a tenth of a second, which a program spends when it has something to show
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

STYLES = {
    "ui.strong": "bold",
    "ui.label": "default",
    "ui.muted": "grey50",
    "ui.heading": "bold",
    "ui.dim": "grey50",
    "ui.accent": "bold magenta",
    "ui.border": "blue",
    "ui.good": "bold green",
    "ui.warn": "yellow",
    "ui.bad": "bold red",
    "progress.percentage": "bold blue",
}
"""mlx_lm.cli_ui's names and colours, and one for what went wrong."""
WIDEST = 10_000
"""Columns of a line that no terminal breaks."""


def make_console(stream: TextIO | None = None) -> Console:
    """A console for `stream`, standard output by default."""
    from rich.console import Console  # noqa: PLC0415
    from rich.theme import Theme  # noqa: PLC0415

    stream = stream or sys.stdout
    width = None if stream.isatty() else WIDEST
    return Console(file=stream, theme=Theme(STYLES), highlight=False, width=width, emoji=False)


def is_lively(stream: TextIO | None = None) -> bool:
    """Whether `stream`, standard output by default, is a terminal where lines can be drawn anew."""
    console = make_console(stream)
    return console.is_terminal and not console.is_dumb_terminal


def make_live(console: Console, transient: bool = False) -> Live:
    """What is drawn anew, on demand; not started."""
    from rich.live import Live  # noqa: PLC0415

    return Live(console=console, auto_refresh=False, transient=transient, **redirections())


def redirections() -> dict[str, Any]:
    """For what is drawn anew: other output appears above it, but what goes to a file goes there."""
    return {"redirect_stdout": sys.stdout.isatty(), "redirect_stderr": sys.stderr.isatty()}


def show(what: RenderableType, stream: TextIO | None = None) -> None:
    """Print text, a table or anything of rich's."""
    make_console(stream).print(what)


def print_error(message: str, stream: TextIO | None = None) -> None:
    """One line on `stream`, standard error by default."""
    from rich.text import Text  # noqa: PLC0415

    console = make_console(stream or sys.stderr)
    console.print(Text.assemble(("error: ", "ui.bad"), message), soft_wrap=True)


def print_muted(text: str, stream: TextIO | None = None) -> None:
    """A line that stands back behind the result."""
    from rich.text import Text  # noqa: PLC0415

    make_console(stream).print(Text(text, style="ui.muted"), soft_wrap=True)


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "", stream: TextIO | None = None) -> None:
    """Rows of cells; the keys of the first row are the head.  Raises OptionError where there are none."""
    console = make_console(stream)
    console.print(make_table(rows, title, framed=console.is_terminal))


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of cells as plain text, whatever the output is.  Raises OptionError where there are none."""
    console = make_console(io.StringIO())
    with console.capture() as captured:
        console.print(make_table(rows, framed=False))
    return captured.get().rstrip("\n")


def make_table(rows: Sequence[Mapping[str, Any]], title: str = "", framed: bool = True) -> Table:
    """The first column to the left, the others to the right.

    framed: with lines around it, and columns of words to the left; else with a rule below the head.
    """
    from rich.box import ROUNDED, Box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if not rows:
        raise OptionError("nothing to show")
    plain = Box("    \n    \n -  \n    \n    \n    \n    \n    \n", ascii=True)
    table = Table(
        title=title or None,
        title_style="ui.accent",
        title_justify="left",
        box=ROUNDED if framed else plain,
        border_style="ui.border",
        header_style="ui.heading",
        show_edge=framed,
        pad_edge=framed,
        padding=(0, 1) if framed else (0, 1, 0, 0),
        show_lines=any("\n" in str(cell) for row in rows for cell in row.values()),
    )
    for place, name in enumerate(rows[0]):
        words = framed and not all(_is_figure(str(row[name])) for row in rows)
        table.add_column(name, justify="left" if words or not place else "right", overflow="fold")
    for row in rows:
        cells = [row[name] for name in rows[0]]
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells))
    return table


def short_path(path: str) -> str:
    """A path with ~ for the user's home folder."""
    home = os.path.expanduser("~")
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}{os.sep}") else path


def _is_figure(cell: str) -> bool:
    """Whether a cell stands for a number, though it may be unknown, estimated or in brackets."""
    return cell.strip()[:1] in ("", *"0123456789-~(?<>=+")


def print_facts(title: str, facts: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Names and values: in a panel at a terminal, else a line each.  None is shown as a dash."""
    from rich.box import ROUNDED  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = make_console(stream)
    lines = Table.grid(padding=(0, 3, 0, 0), pad_edge=False)
    for name, value in facts.items():
        lines.add_row(Text(name, style="ui.label"), Text("-" if value is None else str(value), style="ui.strong"))
    if console.is_terminal:
        title_text = Text(title, style="ui.accent")
        console.print(Panel(lines, title=title_text, title_align="left", border_style="ui.border", box=ROUNDED))
    else:
        console.print(lines)
