"""What the commands of a chat do, and that a conversation survives whatever happens to it."""

import json

import pytest

from mlx_ddtree import generate, load
from mlx_ddtree.errors import MlxDdtreeError, OptionError, PromptError
from mlx_ddtree.generation.options import GenerationOptions
from mlx_ddtree.programs.conversation import Conversation

QUESTION = "Write a function that reverses a string."


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.fixture
def talk(pair):
    return Conversation(pair, GenerationOptions(max_tokens=24))


def said(conversation, message):
    return "".join(r.text for r in conversation.say(message))


def test_answers_are_those_of_generate(pair, talk):
    first = said(talk, QUESTION)
    messages = [{"role": "user", "content": QUESTION}]
    assert first == generate(pair, messages, 24)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "And a list?"}]
    assert said(talk, "And a list?") == generate(pair, messages, 24)
    assert talk.session.reused > 20


def test_the_system_prompt_comes_first(talk):
    talk.command("/system Answer briefly.")
    said(talk, QUESTION)
    assert "Answer briefly." in talk.pair.tokenizer.decode(talk.session.token_ids).split(QUESTION)[0]
    talk.command("/system")
    assert talk.system is None


def test_an_answer_that_is_given_up_stays(talk):
    stream = talk.say(QUESTION)
    text = next(stream).text + next(stream).text
    stream.close()
    assert talk.messages == [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]


def test_a_message_that_is_refused_does_not(talk):
    limit = talk.pair.target.max_context
    with pytest.raises(PromptError, match="context"):
        said(talk, "word " * limit)
    assert talk.messages == []
    assert said(talk, QUESTION)


def test_undo_and_reset(talk):
    first = said(talk, QUESTION)
    said(talk, "And a list?")
    assert "And a list?" in talk.command("/undo")
    assert [m["content"] for m in talk.messages] == [QUESTION, first]
    talk.command("/reset")
    assert talk.messages == [] and talk.session.token_ids == []
    with pytest.raises(OptionError, match="nothing"):
        talk.command("/undo")


def test_stats_tell_speed_and_speedup(talk):
    with pytest.raises(OptionError, match="no answer"):
        talk.command("/stats")
    said(talk, QUESTION)
    held = list(talk.session.token_ids)
    talk.measure_plain()
    assert talk.session.token_ids == held
    text = talk.command("/stats")
    parts = ("24 tokens", "acceptance length", "plain decoding", "measured after", "Rounds by kind")
    assert [part for part in parts if part not in text] == []
    before = talk.plain
    talk.measure_plain()
    assert talk.plain is before  # the context has not grown
    said(talk, "And a list?")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("temp 0.7", "temp", 0.7),
        ("tree-budget=8", "tree_budget", 8),
        ("tree_budget auto", "tree_budget", "auto"),
        ("seed 3", "seed", 3),
        ("seed none", "seed", None),
        ("method ar", "method", "ar"),
    ],
)
def test_settings_can_be_changed(talk, text, name, value):
    assert f"{name:24} {value}" in talk.command(f"/set {text}")
    assert getattr(talk.settings, name) == value


@pytest.mark.parametrize(
    "text",
    [
        "temp x",
        "temp -1",
        "temp nan",
        "bogus 1",
        "top_p 2",
        "top_k",
        "tree_budget 5000",
        "method bogus",
        "max_tokens 0",
    ],
)
def test_settings_that_make_no_sense_change_nothing(talk, text):
    before = talk.settings
    with pytest.raises(OptionError):
        talk.command(f"/set {text}")
    assert talk.settings == before


@pytest.mark.parametrize("text", ["block_size 99"])
def test_settings_that_this_pair_cannot_have_are_refused_by_the_next_message(talk, text):
    talk.command(f"/set {text}")
    with pytest.raises(OptionError):
        said(talk, QUESTION)
    assert talk.messages == []


def test_a_saved_conversation_goes_on(pair, talk, tmp_path):
    said(talk, QUESTION)
    talk.command("/set temp 0.5")
    talk.command("/set seed 1")
    talk.command(f"/save {tmp_path / 'talk.json'}")
    other = Conversation(pair, GenerationOptions())
    other.command(f"/load {tmp_path / 'talk.json'}")
    assert (other.messages, other.settings) == (talk.messages, talk.settings)
    assert said(other, "And a list?") == said(talk, "And a list?")
    assert [p.name for p in tmp_path.iterdir()] == ["talk.json"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "not json",
        "[]",
        json.dumps({"messages": [{"role": "user"}], "settings": {}, "system": None}),
        json.dumps({"messages": [{"role": "user", "content": "x"}], "settings": {}, "system": None}),
        json.dumps({"messages": [], "settings": {"bogus": 1}, "system": None}),
        json.dumps({"messages": [], "settings": {"temp": -1}, "system": None}),
    ],
)
def test_a_file_that_is_no_conversation_changes_nothing(talk, tmp_path, content):
    path = tmp_path / "talk.json"
    if content is not None:
        path.write_text(content)
    said(talk, QUESTION)
    before = list(talk.messages), talk.settings
    with pytest.raises(MlxDdtreeError, match=r"talk\.json|temperature"):
        talk.command(f"/load {path}")
    assert (talk.messages, talk.settings) == before


def test_a_folder_that_is_not_there_is_said(talk, tmp_path):
    with pytest.raises(MlxDdtreeError, match="cannot be written"):
        talk.command(f"/save {tmp_path / 'nowhere' / 'talk.json'}")
    with pytest.raises(OptionError, match="name a file"):
        talk.command("/save")
