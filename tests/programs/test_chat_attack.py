"""Nothing that a user types, pastes or loads ends a chat."""

import json
import subprocess
import sys

import pytest

from mlx_ddtree import load
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.programs.conversation import Conversation
from mlx_ddtree.programs.talking import respond

QUESTION = "Write a function that reverses a string."
LINES = [
    b"caf\xe9",
    b"/system caf\xe9",
    b"/save caf\xe9/\x00",
    b"/save ~nosuchuser/x",
    b"/load ~nosuchuser/x",
    b"/load deep.json",
    b"/load surrogate.json",
    b"/load empty.json",
    b"/undo",
    b"/undo",
    b"/set seed " + b"9" * 5000,
    b"/set temp nan",
    b"/set repetition_context_size " + b"9" * 18,
    b"/set top_k " + b"9" * 18,
    b"/set min_tokens_to_keep " + b"9" * 18,
    b"/set temp 1",
    b"one more",
    b"/set stop none",
    b"/set",
    b"/stats",
    b"/ ",
    b"//",
    b"\x1b[31m\x07",
    b"\xff\xfe",
]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a chat answers to all of that, and then to a question."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "deep.json").write_text('{"messages": ' + "[" * 200_000)
    (folder / "surrogate.json").write_text('{"version": 1, "system": "\\ud800", "messages": [], "settings": {}}')
    messages = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    record = {"version": 1, "system": None, "messages": messages, "settings": {"max_tokens": 8}}
    (folder / "empty.json").write_text(json.dumps(record))
    typed = b"\n".join([*LINES, b"/reset", b"/set temp 0", QUESTION.encode()]) + b"\n"
    return subprocess.run(
        [sys.executable, "-m", "mlx_ddtree.chat", "-m", "8"], input=typed, capture_output=True, timeout=240, cwd=folder
    )


def test_the_chat_goes_on_to_the_last_question(said):
    assert said.returncode == 0, said.stderr[-800:]
    assert said.stderr == b""
    assert said.stdout.rstrip().splitlines()[-1].startswith(b"```python") or b"def " in said.stdout[-60:]


def test_no_fault_of_the_program_was_met(said):
    assert b"Traceback" not in said.stdout and b"a fault of mlx_ddtree" not in said.stdout
    assert said.stdout.count(b"not UTF-8") == 3
    assert said.stdout.count(b"nothing to take back") == 1


def test_a_fault_of_the_program_does_not_end_it_either(capsys, monkeypatch):
    talk = Conversation(load(), GenerationOptions(max_tokens=4))
    respond(talk, QUESTION)
    monkeypatch.setattr(talk, "command", lambda line: 1 / 0)
    respond(talk, "/stats")
    assert "error: ZeroDivisionError" in capsys.readouterr().out
    assert len(talk.messages) == 2


def test_a_template_that_refuses_does_not_end_it(capsys):
    talk = Conversation(load(), GenerationOptions(max_tokens=4), "Be brief.")
    template = talk.pair.tokenizer.chat_template
    talk.pair.tokenizer.chat_template = "{{ raise_exception('no system messages here') }}"
    respond(talk, QUESTION)
    assert "error: the chat template cannot use these messages: no system" in capsys.readouterr().out
    talk.pair.tokenizer.chat_template = template
    respond(talk, QUESTION)
    assert len(talk.messages) == 2
