"""A text whose pieces are marked by where they came from, as HTML.

Colours are translucent, so that they suit any theme; the model's own tokens are bold as well, so that the difference is
there where styles are taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from mlx_ddtree.pictures.theme import FONT

_MARKS = {
    "drafted": ("span", "background:rgba(0,158,115,.25)", "drafted"),
    "copied": ("span", "background:rgba(0,114,178,.30)", "copied from earlier text"),
    "own": ("b", "border-bottom:2px solid rgba(213,94,0,.9)", "the model's own"),
}

Round = tuple[str, Sequence[tuple[str, str]]]
"""A tooltip, and pieces with their origins."""


def marked(rounds: Iterable[Round]) -> str:
    """The text of all rounds; over a piece the mouse is told of its round."""
    body = ""
    for about, pieces in rounds:
        inner = "".join(_mark(text, origin) for text, origin in pieces)
        body += f'<span title="{escape(about)}">{inner}</span>'
    return f'<pre style="font:13px/1.55 {FONT};white-space:pre-wrap;margin:4px 0">{body}</pre>'


def legend(origins: Iterable[str], line: str) -> str:
    """What the marks mean, and a line of figures."""
    marks = " ".join(_mark(_MARKS[origin][2], origin) for origin in _MARKS if origin in origins)
    return f'<div style="font-size:12px;opacity:.85;margin:4px 0">{marks} &nbsp; {escape(line)}</div>'


def _mark(text: str, origin: str) -> str:
    tag, style, _ = _MARKS[origin]
    return f'<{tag} style="{style}">{escape(text)}</{tag}>'
