"""However an answer is shown, its text is the same; colours and marks say where its tokens came from."""

import re

import pytest

from mlx_ddtree.programs.generate import main
from mlx_ddtree.programs.race_bars import RaceBars
from mlx_ddtree.terminal import make_console

from ..terminals import Terminal

PROMPT = "Write a function that reverses a string."
ARGUMENTS = ["--prompt", PROMPT, "-m", "48", "--tree-budget", "8"]


@pytest.fixture(scope="module")
def plain():
    """The answer's text."""
    with pytest.MonkeyPatch.context() as patch:
        import io
        import sys

        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        assert main(ARGUMENTS) == 0
    return out.getvalue()


def without_spaces(text):
    """Text of which line breaks at a terminal's edge do not matter."""
    return re.sub(r"\s+", "", text)


def test_marks_stand_where_there_are_no_colours(capsys, plain):
    assert main([*ARGUMENTS, "--show-drafts"]) == 0
    marked, legend = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert legend == "drafted · <copied from what was said before> · [the model's own]"
    assert re.search(r"\[[^\]]+\]", marked) and "\x1b" not in marked
    brackets = str.maketrans("", "", "[]<>")
    assert marked.translate(brackets) == plain.translate(brackets).rstrip("\n")


def test_a_stop_string_is_not_shown(capsys, plain):
    assert main([*ARGUMENTS, "--show-drafts", "--stop", "return"]) == 0
    marked = capsys.readouterr().out.rsplit("\n", 2)[0]
    assert (
        "return" in plain
        and marked.translate(str.maketrans("", "", "[]<>")).strip() == plain.split("return")[0].strip()
    )


def test_a_terminal_has_colours_and_a_tree_in_place(plain):
    terminal = Terminal("generate", *ARGUMENTS, "--show-drafts", "--show-tree", rows=40)
    try:
        assert terminal.wait_for_end() == 0
        shown = terminal.text
        assert shown.count("╭") == shown.count("╰") == 1 and "accepted ─" in shown and "✓" in shown
        text, figures = shown.split("╯\n", 1)[1].rsplit("\n", 1)
        assert without_spaces(text) == without_spaces(plain)
        assert re.match(r"\d+ tokens · \d+ tok/s · [\d.]+ a round", figures)
        colors = {cell.fg for row in terminal.screen.buffer.values() for cell in row.values() if cell.data.strip()}
        assert {"green", "brown"} <= colors  # drafted, and the model's own
    finally:
        terminal.close()


def test_a_comparison_is_a_race_at_a_terminal(plain):
    terminal = Terminal("generate", "--prompt", PROMPT, "-m", "24", "--compare", rows=40)
    try:
        assert terminal.wait_for_end() == 0
        shown = terminal.text
        assert shown.count("╭") == 1 and shown.count("yes") == 3
        lines = [line for line in shown.splitlines() if "█" in line]
        assert [line.split()[1] for line in lines] == ["ar", "dflash", "ddtree"]
        assert max(line.count("█") for line in lines) == 30
    finally:
        terminal.close()


def test_bars_grow_with_tokens_and_end_as_speeds():
    bars = RaceBars(["ar", "ddtree"], 100)
    console = make_console()

    def lengths():
        with console.capture() as captured:
            console.print(bars.table())
        return [line.count("█") for line in captured.get().splitlines() if "ar " in line or "ddtree" in line]

    assert lengths() == [0, 0]
    runner = bars._runners["ar"]
    runner.tokens, runner.tps = 50, 10.0
    assert lengths() == [15, 0]
    runner.identical = True
    assert lengths() == [30, 0]
    other = bars._runners["ddtree"]
    other.tokens, other.tps, other.identical = 50, 30.0, True
    assert lengths() == [10, 30]


def test_json_and_colours_exclude_each_other(capsys):
    assert main([*ARGUMENTS, "--json", "--show-drafts"]) == 2
    assert "leave out --show-drafts" in capsys.readouterr().err
