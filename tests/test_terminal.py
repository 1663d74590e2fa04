"""What programs print looks well at a terminal, and is plain text everywhere else."""

import io

import pytest
from mlx_lm.cli_ui import make_console as mlx_lm_console

from mlx_ddtree.errors import OptionError
from mlx_ddtree.terminal import (
    STYLES,
    is_lively,
    make_console,
    print_error,
    print_facts,
    print_muted,
    print_table,
    table_text,
)
from mlx_ddtree.terminal_bar import Bar, PromptBar

ROWS = [
    {"method": "ar", "tokens": 3, "kind": "plain", "same": "yes"},
    {"method": "ddtree [8]", "tokens": 88, "kind": "a tree", "same": "yes"},
]
PLAIN = """\
method      tokens    kind  same
----------- ------- ------- ----
ar               3   plain   yes
ddtree [8]      88  a tree   yes
"""


class Tty(io.StringIO):
    """A text file that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")


def test_the_look_is_mlx_lms():
    theirs = mlx_lm_console()
    ours = make_console(io.StringIO())
    for name in STYLES:
        if name != "ui.bad":
            assert ours.get_style(name) == theirs.get_style(name), name


def test_a_table_for_files_is_plain_text_as_wide_as_it_needs():
    file = io.StringIO()
    print_table(ROWS, stream=file)
    assert file.getvalue() == PLAIN
    assert table_text(ROWS) == PLAIN.rstrip("\n")
    wide = io.StringIO()
    print_table([{"name": "x" * 300}], stream=wide)
    assert "x" * 300 in wide.getvalue()


def test_a_table_at_a_terminal_has_a_frame_and_colours():
    tty = Tty()
    print_table(ROWS, "methods", stream=tty)
    shown = tty.getvalue()
    assert "╭" in shown and "methods" in shown and "ddtree [8]" in shown and "\x1b[34m" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_no_color_takes_the_colours_away(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    tty = Tty()
    print_table(ROWS, stream=tty)
    print_muted("figures", tty)
    assert "╭" in tty.getvalue() and "\x1b[3" not in tty.getvalue()


def test_a_table_of_nothing_is_refused():
    with pytest.raises(OptionError, match="nothing to show"):
        print_table([])


def test_facts_are_a_panel_or_lines():
    file, tty = io.StringIO(), Tty()
    for stream in (file, tty):
        print_facts("machine", {"chip": "M5", "gpu": None}, stream)
    assert file.getvalue().split() == ["chip", "M5", "gpu", "-"]
    assert "machine" in tty.getvalue() and "╭" in tty.getvalue()


def test_errors_are_one_line_whatever_is_in_them():
    file = io.StringIO()
    print_error("no [bold]such[/bold] folder: " + "x" * 200, file)
    assert file.getvalue() == "error: no [bold]such[/bold] folder: " + "x" * 200 + "\n"


def test_dumb_terminals_and_files_are_not_drawn_anew(monkeypatch):
    assert is_lively(Tty()) and not is_lively(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not is_lively(Tty())


def test_a_bar_writes_lines_without_a_terminal():
    log = io.StringIO()
    with Bar("train", 4, unit="steps", line_seconds=0.0, stream=log) as bar:
        for _ in range(4):
            bar.note = "tau 2"
            bar.advance()
    lines = log.getvalue().splitlines()
    assert len(lines) == 5 and "\r" not in log.getvalue()
    assert lines[0] == "train:   0% 0/4 steps" and lines[-1] == "train: 100% 4/4 steps, tau 2"


def test_lines_come_now_and_then():
    log = io.StringIO()
    with Bar("train", 1000, line_seconds=30.0, stream=log) as bar:
        for _ in range(1000):
            bar.advance()
    assert len(log.getvalue().splitlines()) == 2  # the first and the last


def test_a_terminal_has_a_bar_and_silence_is_silent():
    tty, silent, file = Tty(), Tty(), io.StringIO()
    for stream, shown in ((tty, True), (silent, False), (file, True)):
        with Bar("train", 180, unit="s", shown=shown, stream=stream, stays=True) as bar:
            bar.reach(500)
    assert "█" in tty.getvalue() and "3.0/3.0 minutes" in tty.getvalue()
    assert silent.getvalue() == file.getvalue() == ""


def test_a_bar_of_unknown_length_counts():
    log = io.StringIO()
    with Bar("kernels", 0, unit="cases", line_seconds=0.0, stream=log) as bar:
        bar.advance()
    assert log.getvalue().endswith("kernels:   0% 1 cases\n")


def test_short_prompts_have_no_bar(capsys):
    with PromptBar(True) as report:
        report(0, 100)
        report(100, 100)
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_prompt_gives_the_cursor_back(monkeypatch):
    tty = Tty()
    monkeypatch.setattr("sys.stderr", tty)
    with pytest.raises(KeyboardInterrupt), PromptBar(True) as report:
        report(100, 10_000)
        raise KeyboardInterrupt
    hidden, shown = tty.getvalue().rfind("\x1b[?25l"), tty.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown


def test_a_bar_does_not_take_what_goes_to_a_file(monkeypatch):
    tty, file = Tty(), io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    with Bar("train", 2, stream=tty):
        print("result")
    assert file.getvalue() == "result\n" and "result" not in tty.getvalue()
