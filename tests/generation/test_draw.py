"""Drawings of draft trees: nothing is missing, nothing is twice, and what is marked is what was accepted."""

import re
from xml.etree import ElementTree

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import draw_tree, load, stream_generate
from mlx_ddtree.decoding.round import Round
from mlx_ddtree.pictures.letters import cells
from mlx_ddtree.programs.generate import main
from mlx_ddtree.tree import DraftTree, accept

from ..tree.trees import draft_trees, random_tree

SVG = "{http://www.w3.org/2000/svg}"
MESSAGES = [{"role": "user", "content": "Write a function that merges two sorted lists."}]


class Words:
    """Decodes token i to the i-th of some texts."""

    def __init__(self, texts):
        self.texts = texts

    def decode(self, token_ids):
        return "".join(self.texts[i % len(self.texts)] for i in token_ids)


@st.composite
def rounds(draw):
    """Any tree, verified by a target that chooses anything."""
    tree = draw(draft_trees(max_nodes=24))
    chosen = draw(st.lists(st.integers(0, 7), min_size=len(tree), max_size=len(tree)))
    path = accept(tree, chosen)
    return round_of(tree, path, [chosen[node] for node in path])


def round_of(tree, path, chosen, said=()):
    return Round(chosen, mx.zeros((len(chosen), 128)), tree, path, chosen, said=said)


def boxes_of(root):
    """The boxes of a picture, those left out that stand once more where their children go on below."""
    return [group for group in root.findall(f"{SVG}g") if group.get("class") != "again"]


def numbered(done):
    """The round with every node a token of its own, named after it; the target's is called 'target'."""
    tree = done.tree
    own = DraftTree(np.arange(len(tree), dtype=np.int32), tree.parents, tree.depths, tree.log_weights)
    words = Words([*(f"<{node}>" for node in range(len(tree))), "target"])
    return draw_tree(round_of(own, done.path, [*done.path[1:], len(tree)]), words)


@settings(max_examples=50)
@given(rounds())
def test_text_has_every_node_once_below_its_parent(done):
    lines = numbered(done).text().splitlines()[1:]
    place = {int(re.search(r"<(\d+)>", line)[1]): i for i, line in enumerate(lines) if "<" in line}
    assert sorted(place) == list(range(len(done.tree))) and len(lines) == len(done.tree) + 1
    indent = [re.search("[✓·→]", line).start() for line in lines]
    for node in range(1, len(done.tree)):
        above = max(i for i in range(place[node]) if indent[i] < indent[place[node]])
        assert above == place[done.tree.parents[node]]
        assert indent[place[node]] == 2 * done.tree.depths[node]


@settings(max_examples=50)
@given(rounds())
def test_exactly_the_accepted_path_is_marked(done):
    drawing = numbered(done)
    lines = drawing.text().splitlines()[1:]
    assert [int(re.search(r"<(\d+)>", line)[1]) for line in lines if "✓" in line] == done.path
    assert [line for line in lines if "→" in line] == [line for line in lines if "target" in line]
    groups = boxes_of(ElementTree.fromstring(drawing.svg()))
    text = {group.find(f"{SVG}text").text: group.get("class") for group in groups}
    accepted = [int(re.search(r"<(\d+)>", label)[1]) for label, kind in text.items() if kind == "accepted"]
    assert sorted(accepted) == sorted(done.path)
    assert [label for label, kind in text.items() if kind == "target"] == ["→ 'target'"]


@settings(max_examples=50)
@given(rounds(), st.lists(st.text(), min_size=1, max_size=8))
def test_any_text_gives_well_formed_pictures_and_clean_lines(done, texts):
    """Control characters, quotes, markup, lone surrogates: nothing reaches a terminal or XML unescaped."""
    drawing = draw_tree(done, Words(texts))
    root = ElementTree.fromstring(drawing.svg().encode("utf-8"))
    assert len(boxes_of(root)) == len(done.tree) + 1
    assert drawing._repr_mimebundle_()["image/svg+xml"] == drawing.svg()
    lines = drawing.text().split("\n")
    assert len(lines) == len(done.tree) + 2
    assert all(line.isprintable() for line in lines)


@settings(max_examples=50)
@given(rounds(), st.sampled_from([1, 200, 860, 5000]))
def test_boxes_lie_apart_inside_the_picture(done, width):
    """Also where the tree goes on below: there a box stands once more before each of its children's rows."""
    root = ElementTree.fromstring(numbered(done).svg(width))
    boxes = [group.find(f"{SVG}rect") for group in root.findall(f"{SVG}g")]
    places = [[float(box.get(key)) for key in ("x", "y", "width", "height")] for box in boxes]
    assert all(x + w <= float(root.get("width")) and y + h <= float(root.get("height")) for x, y, w, h in places)
    for i, (x, y, w, h) in enumerate(places):
        assert not any(x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h for x2, y2, w2, h2 in places[:i])


def test_a_tree_of_64_nodes_stays_readable():
    drawing = draw_tree(round_of(random_tree(64, seed=3), [0], [99]), Words(["a long piece of text, too long to show"]))
    assert max(cells(line) for line in drawing.text().splitlines()) < 100
    assert len(drawing.svg()) < 60_000


def test_probabilities_are_the_drafters():
    tree = DraftTree.chain(np.array([5, 6, 7]), np.log([0.5, 0.25]).astype(np.float32))
    drawing = draw_tree(round_of(tree, [0, 1], [6, 3]), Words(["x"]))
    np.testing.assert_allclose(drawing.probabilities[1:], [0.5, 0.25], rtol=1e-6)
    assert "0.25   -2.08" in drawing.text()


def test_every_response_carries_its_round():
    pair = load()
    for response in stream_generate(pair, MESSAGES, 40, tree_budget=24):
        drawing = draw_tree(response, pair.tokenizer)
        assert len(drawing.labels) == response.nodes + 1
        assert len(drawing.path) == response.acceptance_length
        decoded = [repr(pair.tokenizer.decode([token])) for token in response.round.chosen]
        assert [*(drawing.labels[node] for node in drawing.path[1:]), drawing.target] == decoded


def test_show_tree_leaves_stdout_alone(capsys):
    arguments = ["--prompt", MESSAGES[0]["content"], "-m", "40", "--tree-budget", "8"]
    assert main(arguments) == 0
    plain = capsys.readouterr()
    assert main([*arguments, "--show-tree"]) == 0
    shown = capsys.readouterr()
    assert shown.out == plain.out and plain.err == ""
    assert "round 1: draft, 8 nodes" in shown.err and "✓" in shown.err and "\x1b" not in shown.err


def test_show_tree_is_not_for_comparisons(capsys):
    assert main(["--show-tree", "--compare"]) == 2
    assert "leave out --compare" in capsys.readouterr().err


@pytest.mark.parametrize("color", [False, True])
def test_colors_are_only_paint(color):
    done = round_of(random_tree(12), [0, 1], [1, 50])
    drawing = draw_tree(done, Words(["a", "b"]))
    assert re.sub(r"\x1b\[[\d;]*m", "", drawing.text(color)) == drawing.text()
