"""What notebooks are given: nothing from elsewhere, whole without scripts, and safe with any text."""

import re
from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.pictures.bars_svg import Bar, bars_svg, ticks
from mlx_ddtree.pictures.interactive import interactive
from mlx_ddtree.pictures.marked_text import legend, marked
from mlx_ddtree.pictures.picture import Picture
from mlx_ddtree.pictures.tables import bars_table, facts_table, rows_table
from mlx_ddtree.pictures.theme import DARK, LIGHT
from mlx_ddtree.pictures.tree_svg import Box, tree_svg

NASTY = '<script>alert("1")</script>&\'"]]>\u202e'


class Reader(HTMLParser):
    """The text of a page and its tags; fails where they are not closed in their order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def contrast(one, other):
    """WCAG's contrast of two colours."""

    def light(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK])
def test_text_can_be_read(colors):
    assert all(contrast(color, colors["paper"]) >= 4.5 for name, color in colors.items() if name != "paper")


def test_a_picture_without_scripts_is_the_whole_picture():
    """GitHub takes scripts and styles out; the image that is left has everything."""
    svg = tree_svg([Box("accepted", NASTY, NASTY), Box("target", "b", "c")], [-1, 0], [0, 1], NASTY, 860)
    page = Reader(interactive(svg, NASTY, "hint"))
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["alt"] == NASTY
    kept = b64decode(image["src"].partition("base64,")[2]).decode()
    assert kept == svg
    first = next(group for group in ElementTree.fromstring(kept).iter() if group.get("data-box"))
    assert first.find("{*}title").text == NASTY


def test_nothing_is_loaded_from_elsewhere():
    svg = bars_svg([Bar("a", 1.0, "1", "one")], "title", "unit")
    page = Picture(svg, "title", "hint")._repr_mimebundle_()["text/html"]
    assert set(re.findall(r"https?://[^\"' ]+", page + svg)) == {"http://www.w3.org/2000/svg"}
    assert "import" not in page and "fetch(" not in page


def test_two_pictures_on_a_page_stay_apart():
    svg = bars_svg([Bar("a", 1.0, "1", "one")], "title", "unit")
    names = [re.search('<div id="([^"]+)"', interactive(svg, "t", "h"))[1] for _ in range(2)]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    "page",
    [
        facts_table(NASTY, {NASTY: NASTY}),
        rows_table([{NASTY: NASTY, "b": NASTY}]),
        bars_table(NASTY, NASTY, {NASTY: 3, "b": 1}),
        marked([(NASTY, [(NASTY, "drafted"), (NASTY, "own")])]) + legend(["own", "copied"], NASTY),
    ],
)
def test_any_text_is_text(page):
    read = Reader(page)
    assert NASTY in read.texts and "script" not in [tag for tag, _ in read.tags]


@given(st.lists(st.just(0.0) | st.floats(0.001, 1e6), min_size=1, max_size=6), st.text(max_size=12))
def test_bars_stay_inside_the_picture(values, name):
    name = "".join(c for c in name if c.isprintable())
    bars = [Bar(name, value, f"{value:.2f}x", name, low=value / 2, high=1.5 * value) for value in values]
    root = ElementTree.fromstring(bars_svg(bars, "title", "unit", mark=min(values)))
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width")) <= float(root.get("width"))


@given(st.floats(0.001, 1e6))
def test_axes_have_enough_round_numbers(most):
    found = ticks(most)
    assert 4 <= len(found) <= 11 and found[0] == 0 and found[-1] <= most * (1 + 1e-9)
