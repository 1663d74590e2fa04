"""A draft tree as SVG: boxes, lines, and a tooltip for each box."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from mlx_ddtree.pictures.letters import CHARACTER, SIZE, cells
from mlx_ddtree.pictures.theme import FONT, LIGHT, variables
from mlx_ddtree.pictures.tree_layout import BOX, Layout, Place, Shape, lay_out

PADDING = 6
"""Pixels inside a box."""

_STYLE = f"""{variables(".ddtree")}
.ddtree .paper,.ddtree rect{{fill:var(--paper)}}
.ddtree text{{fill:var(--ink)}}
.ddtree .drafted rect,.ddtree .again rect,.ddtree path{{stroke:var(--quiet)}}
.ddtree .again text,.ddtree .more{{fill:var(--quiet)}}
.ddtree .accepted rect,.ddtree path.accepted{{stroke:var(--accepted)}}
.ddtree .accepted text{{fill:var(--accepted)}}
.ddtree .target rect,.ddtree path.target{{stroke:var(--target)}}
.ddtree .target text{{fill:var(--target)}}"""

_LOOKS = {
    "accepted": ('stroke-width="2"', ' font-weight="bold"', LIGHT["accepted"]),
    "target": ('stroke-width="2" stroke-dasharray="4 3"', ' font-weight="bold"', LIGHT["target"]),
    "drafted": ('stroke-width="1"', "", LIGHT["quiet"]),
    "again": ('stroke-width="1" stroke-dasharray="1 3"', "", LIGHT["quiet"]),
}
"""Per kind of box: its line, its letters, its colour where no style is read."""


@dataclass(frozen=True)
class Box:
    """What one box says.

    kind: 'accepted', 'drafted' or 'target'.
    text: what stands in it.
    about: the tooltip.
    """

    kind: str
    text: str
    about: str


def tree_svg(boxes: Sequence[Box], parents: Sequence[int], depths: Sequence[int], title: str, width: float) -> str:
    """The picture, in the boxes' order from top to bottom; what is wider than `width` pixels goes on below.

    parents, depths: (N,) of the boxes, parents first; parents[0] is -1.
    """
    children: list[list[int]] = [[] for _ in boxes]
    for box, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(box)
    shape = Shape(parents, depths, children, [box_width(box.text) for box in boxes])
    layout = lay_out(shape, width)
    wide = max(layout.width, 2 * 8 + cells(title) * CHARACTER)
    wide, high = round(wide), round(layout.height)
    size = f'width="{wide}" height="{high}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {wide} {high}" class="ddtree" '
            f'role="img" aria-label="{escape(title)}" font-family="{FONT}" font-size="{SIZE}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" {size} rx="6" fill="{LIGHT["paper"]}"/>',
            f'<text x="8" y="20" fill="{LIGHT["ink"]}">{escape(title)}</text>',
            *_lines(boxes, shape, layout),
            *_repeated(boxes, shape, layout),
            *(_rectangle(layout.places[i], i, parents[i], box) for i, box in enumerate(boxes)),
            "</svg>",
        ]
    )


def _lines(boxes: Sequence[Box], shape: Shape, layout: Layout) -> Iterator[str]:
    """A line from every box's parent to it."""
    for i, box in enumerate(boxes[1:], 1):
        left, top = layout.before(shape, i)
        start = left + shape.widths[shape.parents[i]]
        end, bottom = layout.places[i]
        yield _curve((start, top + BOX / 2), (end, bottom + BOX / 2), i, box.kind)


def _repeated(boxes: Sequence[Box], shape: Shape, layout: Layout) -> Iterator[str]:
    """The boxes that begin a band, and dots where the last one has broken off."""
    for i, place in layout.repeated.items():
        yield _rectangle(place, i, shape.parents[i], Box("again", boxes[i].text, f"again: {boxes[i].about}"))
        x, y = layout.places[i]
        yield f'<text class="more" x="{x + shape.widths[i] + 4:.1f}" y="{y + 15:.1f}" fill="{LIGHT["quiet"]}">…</text>'


def _curve(start: Place, end: Place, number: int, kind: str) -> str:
    line, _, color = _LOOKS[kind]
    line = 'stroke-width="3"' if kind == "accepted" else line
    (x0, y0), (x1, y1) = start, end
    bend = (x0 + x1) / 2
    path = f"M{x0:.1f} {y0:.1f}C{bend:.1f} {y0:.1f} {bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return f'<path class="{kind}" data-to="{number}" d="{path}" fill="none" stroke="{color}" {line}/>'


def _rectangle(place: Place, number: int, parent: int, box: Box) -> str:
    x, y = place
    line, letters, color = _LOOKS[box.kind]
    ink = LIGHT["ink"] if box.kind == "drafted" else color
    return (
        f'<g class="{box.kind}" data-box="{number}" data-parent="{parent}"><title>{escape(box.about)}</title>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{box_width(box.text):.1f}" height="{BOX}" rx="5" '
        f'fill="{LIGHT["paper"]}" stroke="{color}" {line}/>'
        f'<text x="{x + PADDING:.1f}" y="{y + 15.5:.1f}" fill="{ink}"{letters} xml:space="preserve">'
        f"{escape(box.text)}</text></g>"
    )


def box_width(text: str) -> float:
    """Pixels of a box around `text`."""
    return cells(text) * CHARACTER + 2 * PADDING
