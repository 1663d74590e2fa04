"""A program's process: whatever it does, the race gets an answer or a reason, and nothing stays behind."""

import os
import sys
import time

import pytest

from mlx_ddtree.benchmarking.race.entrants import Program
from mlx_ddtree.benchmarking.race.worker import ProgramError, Worker

CHATTY = """
import subprocess
PACKAGES = ()

def load(folders):
    child = subprocess.Popen(["sleep", "600"])
    open(folders["file"], "w").write(str(child.pid))

def answer(loaded, ask, tell):
    for tokens in ask["prompt"]:
        tell(tokens)
    return ask["options"]
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "chatty.py"
    path.write_text(CHATTY)
    return Program("chatty", path, sys.executable)


def ask(worker, told, **corrections):
    return worker.answer({"prompt": told, "options": corrections}, 60)


def test_an_answer_has_what_was_told(program, tmp_path):
    with Worker(program, os.environ) as worker:
        assert worker.load({"file": str(tmp_path / "pid")}, 60).startswith("mlx ")
        reply = ask(worker, [[4], [5, 6], [], [7]])
        assert (reply.tokens, reply.rounds) == ([4, 5, 6, 7], 2)  # the prompt's own token is no round, nor is nothing
        assert 0 <= reply.first <= reply.seconds
        assert ask(worker, [[4], [5]], rounds=7).rounds == 7


@pytest.mark.parametrize(
    "corrections",
    [{"tokens": []}, {"tokens": ["x"]}, {"first": -1.0}, {"first": 1e9}, {"rounds": None}, {"rounds": -1}],
)
def test_figures_that_cannot_be_are_no_answer(program, tmp_path, corrections):
    with Worker(program, os.environ) as worker:
        worker.load({"file": str(tmp_path / "pid")}, 60)
        with pytest.raises(ProgramError, match="its reply is not an answer"):
            ask(worker, [[4], [5]], **corrections)


def test_closing_ends_what_the_program_has_started(program, tmp_path):
    with Worker(program, os.environ) as worker:
        worker.load({"file": str(tmp_path / "pid")}, 60)
        child = int((tmp_path / "pid").read_text())
        os.kill(child, 0)  # it runs
    for _ in range(100):
        if not _runs(child):
            break
        time.sleep(0.05)
    assert not _runs(child)
    assert not worker.is_running


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_python_that_is_none_is_a_reason(tmp_path, program):
    (tmp_path / "python").write_text("no program")
    with pytest.raises(ProgramError, match="does not start"):
        Worker(Program("x", program.adapter, str(tmp_path / "python")), os.environ)
    with (
        Worker(Program("x", program.adapter, "/bin/true"), os.environ) as worker,
        pytest.raises(ProgramError, match="it ended with code 0"),
    ):
        worker.load({}, 60)


def test_an_adapter_that_cannot_be_read_is_a_reason(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("PACKAGES = ('no-such-package',)\n")
    with Worker(Program("x", path, sys.executable), os.environ) as worker:
        with pytest.raises(ProgramError, match="not installed: this Python has no no-such-package"):
            worker.load({}, 60)
        path.write_text("this is no Python\n")
        with pytest.raises(ProgramError, match="SyntaxError"):
            worker.load({}, 60)
