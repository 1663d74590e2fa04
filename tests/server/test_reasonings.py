"""Reasoning comes back to the conversation that it belongs to, and to no other."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.pflash.compress import OFF
from mlx_ddtree.server.events import AnswerTotals, Piece
from mlx_ddtree.server.parsing import parse
from mlx_ddtree.server.prompt import prepare
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.reasonings import Reasonings
from mlx_ddtree.server.replies import ChatReply
from mlx_ddtree.server.requests import ChatRequest

from ..talks import TEMPLATE, answer, talking_pair, tool, user

ASK = [{"role": "system", "content": "Be brief."}, user("Where is it.")]
CALL = {"function": {"name": "find", "arguments": '{"name": "it", "deep": true}'}}


def known(reasoning="I look.", conversation=ASK, **said):
    """What remembers one answer to a conversation."""
    reasonings = Reasonings()
    before = reasonings.put_back([dict(message) for message in conversation])
    reasonings.keep(before, {"role": "assistant", "content": "There.", "reasoning_content": reasoning} | said)
    return reasonings


def put_back(reasonings, *messages):
    copies = [dict(message) for message in messages]
    reasonings.put_back(copies)
    return [message.get("reasoning_content") for message in copies]


def test_an_answer_that_comes_back_without_its_reasoning_gets_it():
    assert put_back(known(), *ASK, answer("There."), user("Thanks.")) == [None, None, "I look.", None]
    assert put_back(known(), *ASK, answer(" There.\n")) == [None, None, "I look."]


def test_it_stays_with_its_conversation():
    others = [answer("There"), answer("There.", "My own."), user("There.")]
    assert [put_back(known(), *ASK, other)[-1] for other in others] == [None, "My own.", None]
    assert put_back(known(), user("Where is it."), answer("There."))[-1] is None
    assert put_back(known(), *ASK, answer("Here."), user("Really."), answer("There."))[-1] is None


@pytest.mark.parametrize("arguments", ['{"deep": true, "name": "it"}', {"name": "it", "deep": True}])
def test_calls_are_known_by_what_they_say(arguments):
    reasonings = known(content=None, tool_calls=[CALL])
    again = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "x", "function": {"name": "find", "arguments": arguments}}],
    }
    other = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find", "arguments": {}}}]}
    assert put_back(reasonings, *ASK, again, tool("No."))[2] == "I look."
    assert put_back(reasonings, *ASK, other)[2] is None


@pytest.mark.parametrize("name", ["reasoning", "thinking", "reasoning_content"])
def test_what_clients_send_counts_under_any_of_its_names(name):
    assert put_back(known(), *ASK, answer("There.") | {name: "Mine."})[-1] == "Mine."


def test_an_answer_that_says_nothing_is_not_known_by_it():
    reasonings = known(content="")
    assert reasonings.nbytes == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.text(min_size=1, max_size=20)), max_size=20))
def test_what_is_remembered_is_bounded(answers):
    reasonings = Reasonings(50)
    for content, reasoning in answers:
        reasonings.keep(b"", {"role": "assistant", "content": content, "reasoning_content": reasoning})
        assert reasonings.nbytes == sum(len(text.encode()) for text in reasonings._kept.values()) <= 50
    if answers and len(answers[-1][1].encode()) <= 50:
        assert put_back(reasonings, answer(answers[-1][0])) == [answers[-1][1]]


def prompt(pair, reasonings, messages, **body):
    request, body = parse(ChatRequest, json.dumps({"messages": messages} | body).encode())
    return prepare(pair, request, body, {}, OFF, reasonings)


def test_a_prompt_goes_on_from_all_that_was_said():
    """The server's two halves together: what the first request's reply hands out makes the second one's prompt."""
    pair, reasonings = talking_pair("qwen3", drafter=False), Reasonings()
    first = prompt(pair, reasonings, ASK)
    reasonings.keep(first.conversation, {"role": "assistant", "content": "There.", "reasoning_content": "I look."})
    following = [*ASK, answer("There."), user("Thanks.")]
    text = "".join(pair.tokenizer.decode(prompt(pair, reasonings, following).ids, skip_special_tokens=False))
    assert text.startswith(pair.tokenizer.decode(first.ids, skip_special_tokens=False) + "I look.\n</think>")
    off = {"chat_template_kwargs": {"preserve_thinking": False}}
    text = pair.tokenizer.decode(prompt(pair, reasonings, following, **off).ids, skip_special_tokens=False)
    assert "I look." not in text
    pair.tokenizer.chat_template = TEMPLATE.replace("preserve_thinking", "false")
    loop = [*ASK, answer("There."), tool("No.")]
    text = pair.tokenizer.decode(prompt(pair, reasonings, loop).ids, skip_special_tokens=False)
    assert "I look." in text


def test_a_reply_tells_its_message_once_it_is_complete():
    pair, told = talking_pair("qwen3", drafter=False), []
    reply = ChatReply("m", False, False, AnswerReader(pair.tokenizer, "reasoning"), told.append)
    reply.add(Piece("I look.</think>", [], None))
    assert told == []
    reply.add(Piece("There.", [], AnswerTotals("stop", 1, 0, 1, 1, 1.0, 1.0, 1.0, {})))
    assert [(message["reasoning_content"], message["content"]) for message in told] == [("I look.", "There.")]
