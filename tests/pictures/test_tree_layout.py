"""Trees in bands: no band is wider than was asked where it could be split, and what goes on below begins where it broke off."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.pictures.tree_layout import DOTS, MARGIN, Shape, bands_of, lay_out, rows_of


@st.composite
def shapes(draw):
    """Any tree of up to 24 boxes of any width, in depth-first order."""
    count = draw(st.integers(1, 24))
    parents = [-1, *(draw(st.integers(0, box - 1)) for box in range(1, count))]
    children = [[c for c in range(count) if parents[c] == box] for box in range(count)]
    depths = [0] * count
    for box in range(1, count):
        depths[box] = depths[parents[box]] + 1
    widths = [float(draw(st.integers(10, 180))) for _ in range(count)]
    return Shape(parents, depths, children, widths)


@settings(max_examples=50)
@given(shapes(), st.integers(50, 1200))
def test_bands_are_as_narrow_as_they_can_be(shape, width):
    layout = lay_out(shape, width)
    edges = bands_of(shape, width)
    assert edges[0] == 0 and edges[-1] == max(shape.depths) + 1 and edges == sorted(set(edges))
    assert layout.width <= width or len(edges) == max(shape.depths) + 2


@settings(max_examples=50)
@given(shapes(), st.integers(50, 1200))
def test_lines_go_to_the_right_and_parents_are_beside_their_children(shape, width):
    layout = lay_out(shape, width)
    rows = rows_of(shape)
    for box in range(1, len(shape.parents)):
        (left, top), (x, y) = layout.before(shape, box), layout.places[box]
        assert left + shape.widths[shape.parents[box]] < x
        first = box == shape.children[shape.parents[box]][0]
        assert (y == top) == first == (rows[box] == rows[shape.parents[box]])


def test_a_chain_that_fits_is_one_line():
    shape = Shape([-1, 0, 1], [0, 1, 2], [[1], [2], []], [50.0] * 3)
    layout = lay_out(shape, 1000)
    assert not layout.repeated and len({y for _, y in layout.places}) == 1
    assert layout.width == pytest.approx(2 * MARGIN + 3 * 50 + 2 * 20 + DOTS)
