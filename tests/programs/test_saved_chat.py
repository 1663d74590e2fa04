"""A saved conversation comes back whole, and whatever a file holds, loading it changes nothing or says why."""

import json
import os

import pytest

from mlx_ddtree import load
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.generation.options import FLAGS, GenerationOptions
from mlx_ddtree.programs.conversation import Conversation
from mlx_ddtree.programs.saved_chat import SavedChat, read_chat, write_chat

MESSAGES = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": ""}]
GOOD = {"version": 1, "system": None, "messages": MESSAGES, "settings": {}}


def test_what_is_written_is_read(tmp_path):
    chat = SavedChat(MESSAGES, "Be brief.", GenerationOptions(temp=0.5, stop=("x",), seed=2, kv_keep_ratio=0.5))
    write_chat(tmp_path / "talk.json", chat)
    assert read_chat(tmp_path / "talk.json", GenerationOptions()) == chat
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "surrogate"),
        (json.dumps(GOOD | {"version": 2}), "version is 2"),
        (json.dumps(GOOD | {"version": "1"}), "version is '1'"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "version"}), "version is None"),
        (json.dumps(GOOD | {"system": 7}), "system prompt"),
        (json.dumps(GOOD | {"messages": {}}), "list of messages"),
        (json.dumps(GOOD | {"messages": [1, 2]}), "message 1"),
        (json.dumps(GOOD | {"messages": MESSAGES[:1]}), "no answer"),
        (json.dumps(GOOD | {"messages": MESSAGES[::-1]}), "message 1"),
        (json.dumps(GOOD | {"messages": [{"role": "user", "content": 3}, MESSAGES[1]]}), "content of message 1"),
        (json.dumps(GOOD | {"settings": []}), "no settings"),
        (json.dumps(GOOD | {"settings": {"bogus": 1}}), "no setting 'bogus'"),
        (json.dumps(GOOD | {"settings": {"temp": "hot"}}), "temp is 'hot'"),
        (json.dumps(GOOD | {"settings": {"max_tokens": 5.5}}), "whole number"),
        (json.dumps(GOOD | {"settings": {"max_tokens": [1]}}), "whole number"),
        (json.dumps(GOOD | {"settings": {"seed": 10**30}}), "whole number"),
        (json.dumps(GOOD | {"settings": {"prefill_scorer": "somebody/model"}}), "only you can"),
        (json.dumps(GOOD | {"settings": {"kv_offload": "/tmp"}}), "only you can"),
        (json.dumps(GOOD | {"settings": {"sampler": 1}}), "no setting 'sampler'"),
    ],
)
def test_files_of_others_are_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "talk.json"
    path.write_text(content)
    with pytest.raises(MlxDdtreeError, match=says) as caught:
        read_chat(path, GenerationOptions())
    assert "\n" not in str(caught.value) and "talk.json" in str(caught.value)


def test_nothing_that_reaches_out_is_written(tmp_path):
    settings = GenerationOptions(prefill_scorer="somebody/model", prefill_compression="auto")
    write_chat(tmp_path / "talk.json", SavedChat(MESSAGES, None, settings))
    written = json.loads((tmp_path / "talk.json").read_text())["settings"]
    assert written.keys() == {name for name, flag in FLAGS.items() if not flag.reaches_out}
    assert read_chat(tmp_path / "talk.json", settings).settings == settings


@pytest.mark.parametrize("name", ["~nosuchuser/x.json", "a\0b", "/nowhere/x.json", ".", "", "x" * 5000])
@pytest.mark.parametrize("command", ["/save", "/load"])
def test_names_that_cannot_be_are_refused(name, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talk = Conversation(load(), GenerationOptions())
    with pytest.raises(MlxDdtreeError) as caught:
        talk.command(f"{command} {name}")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MlxDdtreeError, match="not a file"):
        read_chat(tmp_path / "pipe", GenerationOptions())
