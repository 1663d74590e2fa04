"""How an answer is shown while it grows: as text, in colours by where its tokens came from, or with its draft trees."""

from __future__ import annotations

import sys
from typing import Protocol

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from mlx_ddtree.generation.draw import draw_tree
from mlx_ddtree.generation.origins import COPIED, DRAFTED, OWN, Piece, Pieces
from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.pair import Pair
from mlx_ddtree.terminal import is_lively, make_console, make_live

ORIGIN_STYLES = {DRAFTED: "green", COPIED: "cyan", OWN: "bold yellow"}
"""Where a token came from, and its colour at a terminal."""
ABOUT = {DRAFTED: "drafted", COPIED: "copied from what was said before", OWN: "the model's own"}
MARKS = {DRAFTED: ("", ""), COPIED: ("<", ">"), OWN: ("[", "]")}
"""What stands around a token where there are no colours."""
TEXT_LINES = 8
"""Last lines of the answer that stand above its tree."""


class Display(Protocol):
    """A context manager that is told every response."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *error: object) -> None: ...

    def tell(self, response: GenerationResponse) -> None:
        """Show the next round."""


class Silence:
    """Shows nothing: the answer is printed as JSON."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def tell(self, response: GenerationResponse) -> None:
        """Nothing."""


class PlainText(Silence):
    """The text, as it comes."""

    def tell(self, response: GenerationResponse) -> None:
        """Print the round's text."""
        print(response.text, end="", flush=True)


class ShownPieces:
    """An answer's tokens with their origins, cut to the text that was handed out: a stop string is no part of it."""

    def __init__(self, pair: Pair) -> None:
        self._pieces = Pieces(pair.tokenizer)
        self._waiting: list[Piece] = []

    def of(self, response: GenerationResponse) -> list[Piece]:
        """The pieces of the next response's text."""
        self._waiting += self._pieces.of(response)
        room = len(response.text)
        shown = []
        while room and self._waiting:
            piece = self._waiting.pop(0)
            shown.append(Piece(piece.text[:room], piece.origin))
            if len(piece.text) > room:
                self._waiting.insert(0, Piece(piece.text[room:], piece.origin))
            room -= len(shown[-1].text)
        return shown


class ColoredText(Silence):
    """Every token in the colour of where it came from, and a line that explains the colours.

    Without a terminal, copied tokens stand in <>, the model's own in [], and drafted ones as they are.
    """

    def __init__(self, pair: Pair) -> None:
        self._console = make_console()
        self._pieces = ShownPieces(pair)

    def __exit__(self, *error: object) -> None:
        self._console.print(Text("\n").join([Text(), legend(self._has_colors)]), end="")

    @property
    def _has_colors(self) -> bool:
        return self._console.color_system is not None and not self._console.no_color

    def tell(self, response: GenerationResponse) -> None:
        """Print the round's tokens."""
        self._console.print(self.colored(response), end="", soft_wrap=True)
        self._console.file.flush()

    def colored(self, response: GenerationResponse) -> Text:
        """The round's text."""
        text = Text()
        for piece in self._pieces.of(response):
            text.append_text(_marked(piece.text, piece.origin, self._has_colors))
        return text


class Trees(Silence):
    """Every round's tree on standard error, one below the other; its text follows on standard output, unless silent."""

    def __init__(self, pair: Pair, silent: bool) -> None:
        self._pair = pair
        self._silent = silent
        self._console = make_console(sys.stderr)

    def tell(self, response: GenerationResponse) -> None:
        """Draw the round's tree, and print its text."""
        if response.nodes:
            drawing = draw_tree(response, self._pair.tokenizer).text(self._console.color_system is not None)
            self._console.print(Text("\n") + Text.from_ansi(drawing), soft_wrap=True)
        if not self._silent:
            print(response.text, end="", flush=True)


class LiveTree(Silence):
    """At a terminal: the answer's last lines, and under them the round's tree, drawn anew in place.

    When the answer ends, the tree that most was accepted of stays above the whole text.
    """

    def __init__(self, pair: Pair, colored: bool) -> None:
        self._pair = pair
        self._pieces = ShownPieces(pair)
        self._colored = colored
        self._text = Text()
        self._best: GenerationResponse | None = None
        self._tree: RenderableType = Text()
        self._console = make_console()
        self._live = make_live(self._console)

    def __exit__(self, *error: object) -> None:
        self._live.update("" if self._best is None else self._panel(self._best), refresh=True)
        self._live.stop()
        self._console.print(self._text, soft_wrap=True, end="")

    def tell(self, response: GenerationResponse) -> None:
        """Draw the round."""
        if not self._live.is_started:  # not before the answer begins: what happens before it may have a bar of its own
            self._live.start()
        for piece in self._pieces.of(response):
            self._text.append(piece.text, style=ORIGIN_STYLES[piece.origin] if self._colored else "")
        if response.nodes:
            self._tree = self._panel(response)
            if self._best is None or response.round.accepted > self._best.round.accepted:
                self._best = response
        last_lines = Text("\n").join(self._text.wrap(self._console, self._console.width)[-TEXT_LINES:])
        self._live.update(Group(last_lines, self._tree), refresh=True)

    def _panel(self, response: GenerationResponse) -> Panel:
        """The round's tree, as much of it as the terminal has room for."""
        title, *lines = draw_tree(response, self._pair.tokenizer).text(color=True).splitlines()
        room = max(self._console.height - TEXT_LINES - 4, 4)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… {len(lines) - room + 1} nodes more"]
        body = Text.from_ansi("\n".join(lines))
        body.no_wrap = True
        heading = Text(Text.from_ansi(title).plain, style="ui.accent")
        return Panel(body, title=heading, title_align="left", border_style="ui.border")


def make_display(pair: Pair, *, trees: bool, origins: bool, silent: bool) -> Display:
    """What the options ask for, as far as the output can show it."""
    if trees:
        alive = is_lively() and sys.stderr.isatty() and not silent
        return LiveTree(pair, origins) if alive else Trees(pair, silent)
    if silent:
        return Silence()
    return ColoredText(pair) if origins else PlainText()


def legend(colors: bool = True) -> Text:
    """What the colours mean, or the marks in place of them."""
    parts = [_marked(ABOUT[origin], origin, colors) for origin in (DRAFTED, COPIED, OWN)]
    return Text(" · ", style="ui.muted").join(parts)


def _marked(text: str, origin: str, colors: bool) -> Text:
    """A token in its colour or between its marks; what is white stays outside of marks."""
    if colors:
        return Text(text, style=ORIGIN_STYLES[origin])
    before, after = MARKS[origin]
    core = text.strip()
    if not core:
        return Text(text)
    start = text.index(core[0])
    return Text(f"{text[:start]}{before}{core}{after}{text[start + len(core) :]}")
