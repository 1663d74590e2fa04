"""The chat as a user meets it: over a pipe, and at a terminal."""

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from mlx_ddtree.programs.chat import main

COMMAND = [sys.executable, "-m", "mlx_ddtree.chat"]
AT_A_TERMINAL = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C comes through a controlling terminal only
signal.signal(signal.SIGINT, signal.default_int_handler)
from mlx_ddtree.programs.chat import main
sys.exit(main(sys.argv[1:]))
"""
QUESTION = "Write a function that reverses a string."


class Terminal:
    """A chat at a pseudo-terminal."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        environment = os.environ | {"NO_COLOR": "1", "TERM": "dumb"}
        command = [sys.executable, "-c", AT_A_TERMINAL, *arguments]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.unread = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, text, seconds=60, key=""):
        """Until `text` comes, pressing `key` every second; what came since the last wait."""
        start, presses = time.monotonic(), 0
        while text not in self.unread:
            waited = time.monotonic() - start
            assert waited < seconds, f"no {text!r} in {self.unread!r}"
            if key and waited >= presses:
                self.type(key)
                presses += 1
            if select.select([self.master], [], [], 0.1)[0]:
                self.unread += os.read(self.master, 4096).decode(errors="replace")
        new, found, self.unread = self.unread.partition(text)
        return new + found


@pytest.fixture
def terminal(request):
    chats = []

    def start(*arguments):
        chats.append(Terminal(*arguments))
        return chats[-1]

    yield start
    for chat in chats:
        chat.process.kill()
        chat.process.wait()
        os.close(chat.master)


def test_a_session_at_a_terminal(terminal, tmp_path):
    """Streaming, figures, several lines, an interrupt, commands, and leaving."""
    chat = terminal("--max-tokens", "400")
    chat.wait_for(">>> ")
    chat.type(f"{QUESTION}\n")
    assert "def " in chat.wait_for("a round")
    chat.wait_for(">>> ")
    chat.type('"""Now one\n')
    chat.wait_for("... ")
    chat.type('for lists."""\n')
    chat.wait_for("a round")
    chat.wait_for(">>> ")
    chat.type("/stats\n")
    assert "acceptance length" in chat.wait_for("Accepted nodes")
    chat.wait_for(">>> ")
    chat.type("/set temp 1.5\n")
    chat.wait_for(">>> ")
    chat.type("/set seed 2\n")  # babbles on until its limit; most others come to an end
    chat.wait_for(">>> ")
    chat.type("Tell me a long story about a function.\n")
    chat.wait_for("\n")
    time.sleep(0.3)
    chat.type("\x03")
    chat.wait_for("(stopped)")
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}\n")
    chat.wait_for("6 messages")
    chat.wait_for(">>> ")
    chat.type("half a line")
    chat.wait_for("half a line")
    chat.wait_for("(Ctrl-D leaves)", key="\x03")  # input() sleeps through a signal that comes between two keys
    chat.wait_for(">>> ")
    chat.type("\x04")
    assert chat.process.wait(timeout=20) == 0


def test_a_pipe_gets_answers_and_nothing_else():
    done = subprocess.run(
        [*COMMAND, "-m", "30"],
        input=f"{QUESTION}\n/set bogus 1\n//set is a word\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert ">>>" not in done.stdout and "tok/s" not in done.stdout
    assert "def " in done.stdout
    assert "there is no setting 'bogus'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temp", "-1"], "temp -1.0 is out of range"),
        (["--model", "/nowhere"], "no such folder"),
        (["--load", "/nowhere.json"], "does not exist"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out
