"""What a user types, pastes and completes in a chat becomes the message that was meant."""

import io

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from mlx_ddtree.programs.message_input import ChatCompleter, MessageEditor, messages, read_lines

ENTER, ESCAPE, UP = "\r", "\x1b", "\x1b[A"
PASTE = "\x1b[200~{}\x1b[201~"


def typed(keys, history):
    """The message of these keys."""
    with create_pipe_input() as pipe:
        pipe.send_text(keys)
        return MessageEditor(history, input=pipe, output=DummyOutput()).read()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("hello" + ENTER, "hello"),
        (PASTE.format("one\ntwo\nthree") + ENTER, "one\ntwo\nthree"),
        (PASTE.format("one\r\ntwo") + " and more" + ENTER, "one\ntwo and more"),
        (PASTE.format("#define A \\\n  1") + ENTER, "#define A \\\n  1"),
        (PASTE.format('"""A module."""\nx = 1') + ENTER, '"""A module."""\nx = 1'),
        ("one" + ESCAPE + ENTER + "two" + ENTER, "one\ntwo"),
        ("one\\" + ENTER + "two" + ENTER, "one\ntwo"),
    ],
)
def test_what_is_typed_is_one_message(keys, message, tmp_path):
    assert typed(keys, tmp_path / "history") == message


def test_quotes_hold_lines_together(tmp_path):
    assert typed(f'"""one{ENTER}two"""{ENTER}', tmp_path / "history") == "one\ntwo"


def test_earlier_messages_come_back_in_one_piece(tmp_path):
    history = tmp_path / "cache" / "history"
    assert typed(PASTE.format("one\ntwo") + ENTER, history) == "one\ntwo"
    assert typed(UP + ENTER, history) == "one\ntwo"


def test_a_history_that_cannot_be_kept_is_no_reason_to_fail(tmp_path):
    (tmp_path / "file").write_text("")
    assert typed("hello" + ENTER, tmp_path / "file" / "history") == "hello"


def test_ctrl_d_ends_and_ctrl_c_drops_the_line(tmp_path, capsys):
    with create_pipe_input() as pipe:
        pipe.send_text(f"half a line\x03whole{ENTER}\x04")
        editor = MessageEditor(tmp_path / "history", input=pipe, output=DummyOutput())
        assert list(messages(editor.read, terminal=True)) == ["whole"]
    assert "(Ctrl-D leaves)" in capsys.readouterr().out


def offered(text):
    return [c.text for c in ChatCompleter().get_completions(Document(text, len(text)), CompleteEvent())]


def test_commands_settings_values_and_files_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.json").write_text("{}")
    assert offered("/s") == ["/stats", "/set", "/system", "/save"]
    assert offered("/set tem") == ["temp"]
    assert offered("/set method d") == ["ddtree", "dflash"]
    assert offered("/set nothing ") == []
    assert offered("/help un") == ["undo"]
    assert offered("/load ta") == ["lk.json"]
    assert offered("hello /s") == [] and offered("") == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [("plain\n", "plain"), ("one\\\ntwo\\\nthree\n", "one\ntwo\nthree"), ('"""a\n\nb"""\n', "a\n\nb")],
)
def test_lines_of_a_pipe(lines, message, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert read_lines() == message
    with pytest.raises(EOFError):
        read_lines()
