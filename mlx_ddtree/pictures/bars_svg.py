"""Bars beside each other as SVG, with their figures written out: speeds, speedups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from mlx_ddtree.pictures.letters import CHARACTER, PAGE_WIDTH, SIZE, cells
from mlx_ddtree.pictures.theme import FONT, LIGHT, variables

ROW, THICK = 28, 16
TOP, FOOT, MARGIN = 34.0, 40, 12
"""Pixels: of a row, of the bar in it; above the rows, below them, around everything."""

_STYLE = f"""{variables(".ddbars")}
.ddbars .paper{{fill:var(--paper)}}
.ddbars text{{fill:var(--ink)}}
.ddbars .axis text{{fill:var(--quiet)}}
.ddbars line{{stroke:var(--quiet)}}
.ddbars .plain .bar{{fill:var(--quiet)}}
.ddbars .ours .bar{{fill:var(--copied)}}
.ddbars .best .bar{{fill:var(--accepted)}}
.ddbars .range{{stroke:var(--ink)}}"""
_FILLS = {"plain": LIGHT["quiet"], "ours": LIGHT["copied"], "best": LIGHT["accepted"]}


@dataclass(frozen=True)
class Bar:
    """One row.

    name: what stands before it; text: its figures, behind it; about: the tooltip.
    value: its length, in the axis' unit; low, high: a range around it, or None.
    kind: 'plain', 'ours' or 'best', by which it is coloured.
    """

    name: str
    value: float
    text: str
    about: str
    kind: str = "ours"
    low: float | None = None
    high: float | None = None


def bars_svg(bars: Sequence[Bar], title: str, unit: str, mark: float | None = None) -> str:
    """The picture, one row a bar, over an axis from 0.

    unit: what the axis measures, under it.
    mark: a value at which a line stands through all rows.
    """
    left = MARGIN + max(cells(bar.name) for bar in bars) * CHARACTER + 10
    right = max(cells(bar.text) for bar in bars) * CHARACTER + 10 + MARGIN
    most = max(max(bar.value, bar.high or 0.0) for bar in bars) or 1.0
    scale = (PAGE_WIDTH - left - right) / most
    bottom = TOP + ROW * len(bars)
    size = f'width="{PAGE_WIDTH}" height="{bottom + FOOT:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {PAGE_WIDTH} {bottom + FOOT:.0f}" class="ddbars" '
        f'role="img" aria-label="{escape(title)}" font-family="{FONT}" font-size="{SIZE}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" {size} rx="6" fill="{LIGHT["paper"]}"/>',
        _text(MARGIN, 20, title, "ink", bold=True),
        _axis(most, left, scale, bottom, unit),
    ]
    if mark is not None:
        parts.append(_upright(left + mark * scale, TOP, bottom, "4 3"))
    parts += [_row(i, bar, left, scale) for i, bar in enumerate(bars)]
    return "\n".join([*parts, "</svg>"])


def _axis(most: float, left: float, scale: float, bottom: float, unit: str) -> str:
    """Ticks with their numbers, and the unit."""
    parts = [_upright(left, TOP, bottom)]
    for tick in ticks(most):
        x = left + tick * scale
        parts.append(_upright(x, bottom, bottom + 4) + _text(x, bottom + 17, f"{tick:g}", "quiet", "middle"))
    parts.append(_text(left, bottom + 33, unit, "quiet"))
    return f'<g class="axis">{"".join(parts)}</g>'


def ticks(most: float) -> list[float]:
    """Four to ten round numbers from 0 up to `most`."""
    step = 10.0 ** floor(log10(most))
    step = next(part for part in (step / 5, step / 2, step, 2 * step) if most / part <= 10)
    return [round(step * i, 12) for i in range(int(most / step + 1e-9) + 1)]


def _row(number: int, bar: Bar, left: float, scale: float) -> str:
    top = TOP + ROW * number + (ROW - THICK) / 2
    middle, end = top + THICK / 2, left + bar.value * scale
    parts = [
        f"<title>{escape(bar.about)}</title>",
        _text(left - 8, middle + 4, bar.name, "ink", "end"),
        f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{bar.value * scale:.1f}" height="{THICK}" '
        f'fill="{_FILLS[bar.kind]}"/>',
    ]
    if bar.low is not None and bar.high is not None:
        low, high = left + bar.low * scale, left + bar.high * scale
        path = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {top + 3:.1f}v10M{high:.1f} {top + 3:.1f}v10"
        parts.append(f'<path class="range" d="{path}" fill="none" stroke="{LIGHT["ink"]}" stroke-width="1.5"/>')
        end = max(end, high)
    parts.append(_text(end + 8, middle + 4, bar.text, "ink", bold=bar.kind == "best"))
    return f'<g class="{bar.kind}" data-box="{number}" data-parent="-1">{"".join(parts)}</g>'


def _text(x: float, y: float, text: str, color: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{LIGHT[color]}"{weight}>{escape(text)}</text>'


def _upright(x: float, top: float, bottom: float, dashes: str = "none") -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{LIGHT["quiet"]}" '
        f'stroke-dasharray="{dashes}"/>'
    )
