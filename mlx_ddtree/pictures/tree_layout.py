"""Where the boxes of a draft tree stand: time runs to the right, and goes on below where the width ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

ROW, BOX, GAP = 30, 23, 20
MARGIN, TITLE, BETWEEN, DOTS = 8.0, 32, 12, 12
"""Pixels: of a row, of a box in it, between columns; around the picture, for the title, between bands, for the dots
behind a band that goes on."""

Place = tuple[float, float]
"""Left and top edge of a box, in pixels."""


@dataclass(frozen=True)
class Shape:
    """A tree with what the layout asks of it.

    parents, depths: (N,) of the boxes, parents first.
    children: (N,) of every box, in the order in which they shall stand.
    widths: (N,) pixels.
    """

    parents: Sequence[int]
    depths: Sequence[int]
    children: Sequence[Sequence[int]]
    widths: Sequence[float]


@dataclass
class Layout:
    """A tree's places.

    places: (N,) of the boxes.
    repeated: boxes that are shown once more where their children go on in the next band, and where.
    width, height: of the whole.
    """

    places: list[Place]
    repeated: dict[int, Place] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def before(self, shape: Shape, box: int) -> Place:
        """The place of a box's parent that the line to it begins at."""
        parent = shape.parents[box]
        return self.repeated.get(parent, self.places[parent])


def lay_out(shape: Shape, width: float) -> Layout:
    """Boxes in columns by depth and in bands, each as wide as `width` pixels allow."""
    rows = rows_of(shape)
    layout = Layout([(0.0, 0.0)] * len(shape.parents))
    top = float(TITLE)
    for first, end in pairwise(bands_of(shape, width)):
        boxes = [box for box, depth in enumerate(shape.depths) if first <= depth < end]
        again = {shape.parents[box] for box in boxes if shape.depths[box] == first and first > 0}
        height_of = {row: i for i, row in enumerate(sorted({rows[box] for box in boxes}))}
        columns = _columns(shape, first, end, again)
        for box in boxes:
            layout.places[box] = columns[shape.depths[box]], top + ROW * height_of[rows[box]]
        for box in again:  # its first child stands in its row
            layout.repeated[box] = columns[first - 1], top + ROW * height_of[rows[box]]
        layout.width = max(layout.width, columns[end] - GAP + MARGIN + DOTS)
        top += ROW * len(height_of) + BETWEEN
    layout.height = top - BETWEEN + MARGIN
    return layout


def rows_of(shape: Shape) -> list[int]:
    """(N,) rows.  A box stands in the row of its parent if it is the first child, so the best path is straight."""
    rows = [0] * len(shape.parents)
    free, stack = 0, [0]
    while stack:
        box = stack.pop()
        if box:
            parent = shape.parents[box]
            first = box == shape.children[parent][0]
            free += not first
            rows[box] = rows[parent] if first else free
        stack += reversed(shape.children[box])
    return rows


def bands_of(shape: Shape, width: float) -> list[int]:
    """The depths at which bands begin, and the one behind the last: as even as they come, each within `width`."""
    depths = max(shape.depths) + 1
    for count in range(1, depths + 1):
        edges = sorted({round(depths * i / count) for i in range(count + 1)})
        if all(_band_width(shape, first, end) <= width for first, end in pairwise(edges)):
            return edges
    return list(range(depths + 1))


def _band_width(shape: Shape, first: int, end: int) -> float:
    again = {shape.parents[box] for box, depth in enumerate(shape.depths) if depth == first and first > 0}
    return _columns(shape, first, end, again)[end] - GAP + MARGIN + DOTS


def _columns(shape: Shape, first: int, end: int, again: set[int]) -> dict[int, float]:
    """Left edges by depth, from the repeated boxes' (first - 1) to the one behind the last (end)."""
    columns, x = {}, MARGIN
    if again:
        columns[first - 1] = x
        x += max(shape.widths[box] for box in again) + GAP
    for depth in range(first, end):
        columns[depth] = x
        x += max(width for width, at in zip(shape.widths, shape.depths, strict=True) if at == depth) + GAP
    columns[end] = x
    return columns
