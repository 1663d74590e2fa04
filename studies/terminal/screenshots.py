"""Pictures of the programs at a terminal, and a chat as text: real runs at a pseudo-terminal, drawn by rich.

Usage: python studies/terminal/screenshots.py [generate compare drafts tree chat models doctor benchmark] [--out docs/terminal]

Writes NAME-dark.svg and NAME-light.svg for each, and of `chat` also its screen as text to chat.txt.  Speeds in the
pictures are those of the machine that made them.
"""

import argparse
import io
import re
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

import mlx_ddtree  # noqa: F401 (before MLX)

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.terminals import PASTE, Terminal

QUESTION = "Write a function that checks whether a number is prime."
LIGHT = TerminalTheme(
    (250, 250, 250),
    (36, 41, 47),
    [
        (36, 41, 47),
        (207, 34, 46),
        (17, 99, 41),
        (125, 78, 0),
        (9, 105, 218),
        (130, 80, 223),
        (27, 124, 131),
        (110, 119, 129),
    ],
    [
        (87, 96, 106),
        (164, 14, 38),
        (26, 127, 55),
        (99, 60, 1),
        (33, 139, 255),
        (164, 117, 249),
        (49, 146, 170),
        (140, 149, 159),
    ],
)
MOST_LINES = 48
"""Of a picture."""
THEMES = {"dark": SVG_EXPORT_THEME, "light": LIGHT}
NAMES = {"brown": "yellow", "brightbrown": "bright_yellow"}
"""pyte's names of colours, and rich's."""


def alone(*arguments):
    """A program that ends by itself."""

    def play(**how):
        with tempfile.TemporaryDirectory() as folder:
            terminal = Terminal(*(argument.replace("TMP", folder) for argument in arguments), **how)
            try:
                terminal.wait_for_end(600)
                return terminal
            finally:
                terminal.close()

    return play


def chat(**how):
    """A question, a pasted message of three lines, commands, and an answer that is stopped."""
    terminal = Terminal("chat", "--max-tokens", "220", **how)
    try:
        terminal.wait_for(">>> ", 120)
        for message in (QUESTION, PASTE.format("Write a function\nthat counts the vowels\nof a string.")):
            terminal.type(message)
            time.sleep(0.5)
            terminal.type("\r")
            terminal.wait_for("a round", 120)
            terminal.wait_for(">>> ", 120)
        for command in ("/tree", "/stats", "/set temp 0"):
            time.sleep(0.5)
            terminal.type(f"{command}\r")
            terminal.wait_for(">>> ", 120)
        time.sleep(0.5)
        terminal.type("Write a class for a bank account.\r")
        terminal.wait_for("class\x1b")  # in the answer, whose code has colours
        terminal.type("\x03")
        terminal.wait_for("(stopped)", 120)
        terminal.wait_for(">>> ", 120)
        terminal.type("q\r")
        terminal.wait_for_end()
        return terminal
    finally:
        terminal.close()


SCENES = {
    "generate": (alone("generate", "--prompt", QUESTION), {"rows": 30, "columns": 96}),
    "compare": (alone("generate", "--compare", "--prompt", QUESTION), {"rows": 34, "columns": 96}),
    "drafts": (alone("generate", "--show-drafts", "--prompt", QUESTION), {"rows": 30, "columns": 96}),
    "tree": (
        alone("generate", "--show-tree", "--tree-budget", "12", "--prompt", QUESTION),
        {"rows": 46, "columns": 96},
    ),
    "chat": (chat, {"rows": 260, "columns": 96}),
    "models": (alone("models", "qwen3.6", "--ram", "36"), {"rows": 40, "columns": 118}),
    "doctor": (alone("doctor", "--pair"), {"rows": 70, "columns": 100}),
    "benchmark": (
        alone("benchmark", "run", "--count", "4", "--max-tokens", "96", "--output", "TMP/run.jsonl"),
        {"rows": 60, "columns": 96},
    ),
}


def styled(screen):
    """What a terminal shows as rich's text, without empty lines at the end."""
    lines = []
    for row in range(screen.lines):
        line = Text()
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        for style, run in groupby(cells, style_of):
            line.append("".join(cell.data for cell in run), style=style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return Text("\n").join(lines)


def style_of(cell):
    """One character's colours and weight."""
    return Style(
        color=color_of(cell.fg),
        bgcolor=color_of(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
    )


def color_of(name):
    """pyte's colour as rich's; None is the terminal's own."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return NAMES.get(name, name.replace("bright", "bright_"))


def picture(text, title, columns, theme):
    """SVG of a terminal; the fonts are the reader's own, since pages show no pictures that fetch some."""
    console = Console(record=True, width=columns, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    console.print(text, soft_wrap=True)
    drawn = console.export_svg(title=title, theme=theme, unique_id="t")
    drawn = re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return re.sub(r"\n\s+", "\n", drawn.replace("Fira Code", "ui-monospace, Menlo, Consolas"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", help=", ".join(SCENES))
    parser.add_argument("--out", type=Path, default=Path("docs/terminal"), help="folder (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    scenes = args.scenes or list(SCENES)
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        environment = {"HOME": home, "MLX_DDTREE_CACHE": "", "XDG_CACHE_HOME": ""}
        if scenes != ["models"]:
            alone("doctor", "--pair")(**environment)  # measures the pair
        for name in scenes:
            show(name, args.out, environment)


def show(name, out, environment):
    """Play a scene, and write its pictures."""
    play, how = SCENES[name]
    terminal = play(**how, **environment)
    text = Text("\n").join(styled(terminal.screen).split("\n")[:MOST_LINES])
    for brightness, theme in THEMES.items():
        drawn = picture(text, f"mlx_ddtree {name}", how["columns"], theme)
        (out / f"{name}-{brightness}.svg").write_text(drawn, encoding="utf-8")
    if name == "chat":
        (out / "chat.txt").write_text(terminal.text + "\n", encoding="utf-8")
    print(f"{name}: {len(text.plain.splitlines())} lines, {len(drawn) / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
