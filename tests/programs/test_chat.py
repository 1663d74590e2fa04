"""The chat as a user meets it: over a pipe, and at a terminal."""

import json
import subprocess
import sys
import time

import pytest

from mlx_ddtree.programs.chat import main
from mlx_ddtree.programs.commands import COMMANDS, help_text

from ..terminals import PASTE, Terminal

COMMAND = [sys.executable, "-m", "mlx_ddtree.chat"]
QUESTION = "Write a function that reverses a string."
PASTED = "Write a function\nthat counts the vowels\nof a string."


@pytest.fixture
def terminal():
    chats = []

    def start(*arguments, **how):
        chats.append(Terminal("chat", *arguments, **how))
        return chats[-1]

    yield start
    for chat in chats:
        chat.close()


def test_a_session_at_a_terminal(terminal, tmp_path):
    """A pasted text is one message; commands, an interrupted answer, saving, Ctrl-C at the prompt, and leaving."""
    chat = terminal("--max-tokens", "400", rows=200)
    chat.wait_for(">>> ")
    assert "mlx_ddtree.chat" in chat.text and "the embedded pair" in chat.text
    chat.type(PASTE.format(PASTED))
    chat.wait_for("of a string.")
    chat.type("\r")
    chat.wait_for("a round")
    chat.wait_for(">>> ")
    assert "def " in chat.text and "```" not in chat.text  # Markdown is rendered
    chat.type("/stats\r")
    chat.wait_for("Accepted nodes")
    chat.wait_for(">>> ")
    assert "╭─ statistics" in chat.text
    chat.type("/tree\r")
    chat.wait_for("the target's own")
    chat.wait_for(">>> ")
    for setting in ("temp 1.5", "seed 2"):  # babbles on for 245 tokens
        chat.type(f"/set {setting}\r")
        chat.wait_for(f"({setting.replace(' ', ' is ')})")
        chat.wait_for(">>> ")
    chat.type("Tell me a long story about a function.\r")
    chat.wait_for("\n")
    time.sleep(0.3)
    chat.type("\x03")
    chat.wait_for("(stopped)")
    chat.wait_for(">>> ")
    chat.type(f"/save {tmp_path / 'talk.json'}\r")
    chat.wait_for("4 messages")
    chat.wait_for(">>> ")
    chat.type("half a line")
    chat.wait_for("half a line")
    chat.type("\x03")
    chat.wait_for("(Ctrl-D leaves)")
    chat.wait_for(">>> ")
    chat.type("\x04")
    assert chat.wait_for_end(20) == 0
    messages = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == [PASTED, "Tell me a long story about a function."]


def test_a_terminal_without_any_skills_gets_plain_text(terminal):
    chat = terminal("--max-tokens", "40", "--method", "ar", TERM="dumb", NO_COLOR="1")
    chat.wait_for(">>> ")
    chat.type(f"{QUESTION}\r")
    said = chat.wait_for("a round")
    assert "```python" in said and "\x1b" not in said
    chat.wait_for(">>> ")
    chat.type("h\r")
    assert "/undo" in chat.wait_for("q, r and h")
    chat.wait_for(">>> ")
    chat.type("q\r")
    assert chat.wait_for_end(20) == 0


def test_a_pipe_gets_answers_and_nothing_else():
    done = subprocess.run(
        [*COMMAND, "-m", "30", "--method", "ar", "--chat-template-args", '{"unknown": 1}', "--stop", "return"],
        input=f"{QUESTION}\n/set bogus 1\n//set is a word\nq\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert ">>>" not in done.stdout and "tok/s" not in done.stdout
    assert "def " in done.stdout and "return" not in done.stdout
    assert "there is no setting 'bogus'" in done.stdout
    assert done.stderr == ""


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


def test_every_command_can_be_asked_about():
    whole = help_text()
    for command in COMMANDS:
        assert command.name in whole and command.about in help_text(command.name.removeprefix("/"))
    assert "pasted" in help_text(terminal=True) and "pasted" not in whole
