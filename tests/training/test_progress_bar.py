"""A bar on a terminal, and lines that a log can hold elsewhere."""

import io

from mlx_ddtree.training.progress_bar import make_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_without_a_terminal():
    log = io.StringIO()
    with make_bar(True, log, line_seconds=0.0, total=4, desc="train") as bar:
        for _ in range(4):
            bar.set_postfix_str("tau 2", refresh=False)
            bar.update(1)
    assert "\r" not in log.getvalue()
    lines = log.getvalue().splitlines()
    assert len(lines) >= 5
    assert all(line.startswith("train: ") for line in lines)
    assert lines[0].startswith("train:   0%") and "4/4" in lines[-1] and "tau 2" in lines[-1]


def test_lines_come_now_and_then():
    log = io.StringIO()
    with make_bar(True, log, total=1000) as bar:
        for _ in range(1000):
            bar.update(1)
    assert len(log.getvalue().splitlines()) == 2  # the first and the last


def test_a_terminal_has_a_bar_and_silence_is_silent():
    terminal, silent = Terminal(), io.StringIO()
    for stream, enabled in ((terminal, True), (silent, False)):
        with make_bar(enabled, stream, total=3) as bar:
            bar.update(3)
    assert "\r" in terminal.getvalue()
    assert silent.getvalue() == ""
