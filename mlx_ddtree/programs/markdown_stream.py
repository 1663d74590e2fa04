"""Markdown that is rendered while it streams: what is finished stays, the block that still grows is drawn anew."""

from __future__ import annotations

import re
from time import perf_counter

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment

from mlx_ddtree.generation.response import GenerationResponse
from mlx_ddtree.terminal import make_live

CODE_THEME = "ansi_dark"
"""Colours of code by the terminal's own sixteen, without a background: they fit light terminals, too."""
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
SECONDS_BETWEEN = 0.05
"""Between two drawings: an answer need not wait for more of them."""
ROOM_BELOW = 2
"""Lines of the terminal that stay free below what grows."""


class MarkdownStream:
    """A context manager; `feed` it an answer's text as it comes.

    Blocks end at empty lines outside of code, before a line that is not indented: what is indented may belong to the
    list before it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = ""
        self._drawn = 0.0
        self._live = make_live(console, transient=True)

    def __enter__(self) -> MarkdownStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        self._keep(self._open)

    def tell(self, response: GenerationResponse) -> None:
        """Show a round's text."""
        self.feed(response.text)

    def feed(self, text: str) -> None:
        """Show further text."""
        if not self._live.is_started:  # not before the answer begins: what happens before it may have a bar of its own
            self._live.start()
        *finished, self._open = split_blocks(self._open + text)
        if finished:
            self._live.update("", refresh=True)
        for block in finished:
            self._keep(block)
        if finished or perf_counter() - self._drawn > SECONDS_BETWEEN:
            self._live.update(_Tail(self._open), refresh=True)
            self._drawn = perf_counter()

    def _keep(self, block: str) -> None:
        """Print what will not change any more."""
        if block.strip():
            self._console.print(Markdown(block, code_theme=CODE_THEME))
            self._console.print()


class _Tail:
    """The last lines of a block, as many as the terminal has room for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(options.size.height - ROOM_BELOW, 1)
        lines = console.render_lines(Markdown(self._text, code_theme=CODE_THEME), options, pad=False)
        for line in lines[-room:]:
            yield from line
            yield Segment.line()


def split_blocks(text: str) -> list[str]:
    """Markdown's blocks; the last one may still grow."""
    blocks = []
    fence = ""
    start = place = 0
    after_empty = False
    for line in text.splitlines(keepends=True):
        if not fence and after_empty and line.strip() and not line[0].isspace():
            blocks.append(text[start:place])
            start = place
        opening = _FENCE.match(line)
        if fence:
            if opening is not None and opening[1].startswith(fence) and line.strip() == opening[1]:
                fence = ""
        elif opening is not None:
            fence = opening[1]
        after_empty = not line.strip()
        place += len(line)
    return [*blocks, text[start:]]
