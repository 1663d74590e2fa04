"""Small tables and bars as HTML that reads well in any theme: no colours but translucent ones, no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_CELL = "padding:2px 10px;text-align:"
_TABLE = "border-collapse:collapse;margin:4px 0"


def facts_table(title: str, facts: Mapping[str, Any]) -> str:
    """A name and its value a line, under a title."""
    rows = "".join(
        f'<tr><th style="{_CELL}left;font-weight:600">{escape(name)}</th>'
        f'<td style="{_CELL}left">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table style="{_TABLE}"><caption style="text-align:left"><b>{escape(title)}</b></caption>{rows}</table>'


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under a head, the keys of the first; the first column names the rows, the others are figures."""
    head = list(rows[0])
    sides = ["left", *["right"] * (len(head) - 1)]
    line = "".join(f'<th style="{_CELL}{side}">{escape(name)}</th>' for name, side in zip(head, sides, strict=True))
    body = ""
    for row in rows:
        cells = (f'<td style="{_CELL}{side}">{escape(str(row[n]))}</td>' for n, side in zip(head, sides, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<table style="{_TABLE}"><thead><tr>{line}</tr></thead><tbody>{body}</tbody></table>'


def bars_table(title: str, what: str, counts: Mapping[Any, int]) -> str:
    """How often each of `counts` was, with a bar for its share; what: a word for its keys."""
    total, most = max(sum(counts.values()), 1), max(counts.values(), default=1)
    body = ""
    for key, count in counts.items():
        wide = f"{12 * count / most:.2f}em"
        bar = f'<div style="background:rgba(86,180,233,.75);width:{wide};height:.9em;border-radius:2px"></div>'
        body += (
            f'<tr><td style="{_CELL}right">{escape(str(key))}</td><td style="{_CELL}left">{bar}</td>'
            f'<td style="{_CELL}right">{count}</td><td style="{_CELL}right">{count / total:.0%}</td></tr>'
        )
    head = (
        f'<tr><th style="{_CELL}right">{escape(what)}</th><th></th>'
        f'<th style="{_CELL}right">rounds</th><th style="{_CELL}right">share</th></tr>'
    )
    return (
        f'<table style="{_TABLE}"><caption style="text-align:left"><b>{escape(title)}</b></caption>{head}{body}</table>'
    )


def side_by_side(*parts: str) -> str:
    """HTML parts in a line, as far as the page is wide."""
    cells = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px 32px;align-items:flex-start">{cells}</div>'
