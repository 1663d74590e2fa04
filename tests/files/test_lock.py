"""One process at a time runs what a lock guards, and none waits for ever."""

import subprocess
import sys
from time import monotonic

import pytest

from mlx_ddtree.files.lock import in_turn, try_lock

TURN = """
import sys, time
from pathlib import Path
from mlx_ddtree.files.lock import in_turn
with in_turn(Path(sys.argv[1]), 60, lambda: None):
    with open(sys.argv[2], "a") as journal:
        journal.write("in\\n")
        journal.flush()
        time.sleep(0.3)
        journal.write("out\\n")
"""


def test_processes_take_turns(tmp_path):
    command = [sys.executable, "-c", TURN, str(tmp_path / "new" / "lock"), str(tmp_path / "journal")]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(60) == 0
    assert (tmp_path / "journal").read_text().split() == ["in", "out"] * 3


def test_a_killed_process_gives_its_turn_up(tmp_path):
    command = [sys.executable, "-c", TURN.replace("0.3", "60"), str(tmp_path / "lock"), str(tmp_path / "journal")]
    process = subprocess.Popen(command)
    while not (tmp_path / "journal").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    with in_turn(tmp_path / "lock", 60, pytest.fail):
        pass


def test_waiting_is_said_once_and_ends(tmp_path):
    said = []
    with (tmp_path / "lock").open("a") as other:
        assert try_lock(other)
        start = monotonic()
        with in_turn(tmp_path / "lock", 0.5, lambda: said.append(True)):
            assert monotonic() - start < 30
    assert said == [True]


def test_a_place_that_cannot_be_written_is_no_reason_to_wait(tmp_path):
    (tmp_path / "file").write_text("")
    with in_turn(tmp_path / "file" / "lock", 60, pytest.fail):
        pass
