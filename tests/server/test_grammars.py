"""Answers of a given form, and calls that must be made, over every API; what cannot be followed is a 400."""

import json
from typing import Literal

import openai
import pytest
from mlx_lm.tool_parsers import json_tools
from pydantic import BaseModel, Field

from mlx_ddtree import Grammar, generate, load
from mlx_ddtree.server.messages_request import parse_messages

from .running import QUESTION, make_engine, serving, started, text_of

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "kind": {"enum": ["function", "class"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}
ASK = {"model": "demo", "messages": QUESTION, "max_tokens": 60}
FORMAT = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
CITY = {"type": "object", "properties": {"city": {"enum": ["Bern", "Basel"]}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY | {"additionalProperties": False}}},
    {"type": "function", "function": {"name": "now"}},
]


@pytest.fixture(scope="module")
def calling():
    """A server of the embedded pair, whose tokenizer is told that it calls tools as Hermes and Qwen do."""

    def load_with_calls():
        pair = load()
        tokenizer = pair.tokenizer
        tokenizer._tool_call_start, tokenizer._tool_call_end = json_tools.tool_call_start, json_tools.tool_call_end
        tokenizer._tool_parser = json_tools.parse_tool_call
        return pair

    with started(make_engine(load_with_calls, method="ar")) as engine, serving(engine) as site:
        yield site


def test_a_chat_has_the_form_that_was_asked_for(site, pair):
    expected = generate(pair, QUESTION, 60, grammar=Grammar.json_schema(SCHEMA))
    whole = site.openai.chat.completions.create(response_format=FORMAT, **ASK)
    chunks = list(site.openai.chat.completions.create(response_format=FORMAT, stream=True, **ASK))
    assert whole.choices[0].message.content == text_of(chunks) == expected
    assert json.loads(expected)["kind"] in ("function", "class")
    assert whole.choices[0].finish_reason == "stop"
    assert site.http.post("/v1/chat/completions", json=ASK | {"response_format": {"type": "text"}}).status_code == 200


class Thing(BaseModel):
    name: str = Field(max_length=12)
    kind: Literal["function", "class"]
    size: int | None


def test_the_official_client_parses_what_it_asked_for(site):
    answer = site.openai.chat.completions.parse(response_format=Thing, **ASK | {"max_tokens": 100})
    assert isinstance(answer.choices[0].message.parsed, Thing)


def test_any_json_object(site, pair):
    whole = site.openai.chat.completions.create(response_format={"type": "json_object"}, **ASK)
    assert whole.choices[0].message.content == generate(pair, QUESTION, 60, grammar=Grammar.json_object())


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        ({"json": SCHEMA}, Grammar.json_schema(SCHEMA)),
        ({"regex": "[a-z]{3,9} [0-9]"}, Grammar.regex("[a-z]{3,9} [0-9]")),
        ({"choice": ["yes", "no"]}, Grammar.regex("yes|no")),
        ({"grammar": 'start: "a" | "b" start'}, Grammar.regex("b*a")),
    ],
)
def test_other_forms_by_the_name_that_vllm_has_for_them(site, pair, form, grammar):
    """On completions, which have no reasoning, as on chats."""
    body = {"prompt": "def add(", "max_tokens": 30, "structured_outputs": form}
    said = site.http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    assert said == generate(pair, "def add(", 30, grammar=grammar)
    with_chat = site.openai.chat.completions.create(extra_body={"structured_outputs": form}, **ASK)
    assert with_chat.choices[0].message.content == generate(pair, QUESTION, 60, grammar=grammar)


def test_log_probabilities_are_those_of_what_was_allowed(site):
    form = {"structured_outputs": {"choice": ["yes", "no"]}}
    whole = site.openai.chat.completions.create(logprobs=True, top_logprobs=3, extra_body=form, **ASK)
    first = whole.choices[0].logprobs.content[0]
    assert first.logprob > -20 and first.top_logprobs[-1].logprob >= -9999


def test_messages_ask_for_a_form_by_two_names(site, pair):
    expected = generate(pair, QUESTION, 60, grammar=Grammar.json_schema(SCHEMA))
    output = {"type": "json_schema", "schema": SCHEMA}
    for change in ({"output_config": {"format": output}}, {"output_format": output}):
        answer = site.http.post("/v1/messages", json=ASK | change).json()
        assert answer["content"] == [{"type": "text", "text": expected}]
        assert answer["stop_reason"] == "end_turn"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_that_must_be_made_is_made(calling, choice):
    """By a model that has never seen a tool."""
    whole = calling.openai.chat.completions.create(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, **ASK)
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "tool_calls" and message.content is None
    (call,) = message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert arguments == {} if call.function.name == "now" else arguments["city"] in ("Bern", "Basel")


def test_messages_force_calls(calling):
    tools = [{"name": "weather", "input_schema": TOOLS[0]["function"]["parameters"]}]
    for choice in ({"type": "tool", "name": "weather"}, {"type": "any", "disable_parallel_tool_use": True}):
        answer = calling.http.post("/v1/messages", json=ASK | {"tools": tools, "tool_choice": choice}).json()
        (block,) = answer["content"]
        assert (block["type"], block["name"], answer["stop_reason"]) == ("tool_use", "weather", "tool_use")
        assert block["input"]["city"] in ("Bern", "Basel")


def test_responses_ask_for_a_form_and_for_calls(site, pair, calling):
    ask = {"model": "demo", "input": QUESTION, "max_output_tokens": 60}
    form = {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}
    whole = site.openai.responses.create(text={"format": form}, **ask)
    assert whole.output_text == generate(pair, QUESTION, 60, grammar=Grammar.json_schema(SCHEMA))
    assert whole.text.format.name == "thing"
    parsed = site.openai.responses.parse(text_format=Thing, **ask | {"max_output_tokens": 100})
    assert isinstance(parsed.output_parsed, Thing)
    tools = [{"type": "function", "strict": None, **tool["function"]} for tool in TOOLS]
    for choice in ("required", {"type": "function", "name": "weather"}):
        answer = calling.openai.responses.create(tools=tools, tool_choice=choice, parallel_tool_calls=False, **ask)
        (item,) = answer.output
        assert item.type == "function_call" and item.name in ("weather", "now")
    with pytest.raises(openai.BadRequestError, match=r"text\.format: "):
        site.openai.responses.create(text={"format": {"type": "xml"}}, **ask)


def test_beside_tools_a_form_leaves_the_choice(calling):
    """Either JSON of the schema, or a call."""
    whole = calling.openai.chat.completions.create(tools=TOOLS, response_format=FORMAT, **ASK | {"max_tokens": 200})
    message = whole.choices[0].message
    assert message.tool_calls or json.loads(message.content)["kind"] in ("function", "class")


def test_how_messages_become_chats():
    tool = {"name": "f", "input_schema": {}}

    def chat_of(**change):
        body = {"max_tokens": 5, "messages": QUESTION, "tools": [tool]} | change
        return parse_messages(json.dumps(body).encode())[1]

    assert chat_of(tool_choice={"type": "any"})["tool_choice"] == "required"
    assert "parallel_tool_calls" not in chat_of(tool_choice={"type": "any"})
    alone = {"type": "any", "disable_parallel_tool_use": True}
    assert chat_of(tool_choice=alone)["parallel_tool_calls"] is False
    named = {"type": "function", "function": {"name": "f"}}
    assert chat_of(tool_choice={"type": "tool", "name": "f"})["tool_choice"] == named
    assert "response_format" not in chat_of(output_config={"effort": "low"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "objekt"}}}}, "Invalid type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format: "),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs: the regular expression cannot be used"),
        ({"structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs: must be an object with one of"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs: choice must be a list of texts"),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs: the grammar cannot be used"),
        ({"tool_choice": "required"}, "tool_choice: there are no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": TOOLS}, "there is no tool 'f'"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS}, "tool_choice: "),
        (
            {
                "response_format": {"type": "json_object"},
                "messages": [*QUESTION, {"role": "assistant", "content": "{"}],
                "continue_final_message": True,
            },
            "response_format: an answer that is begun already",
        ),
        (
            {"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]},
            "the parameters of the tool 'f' are no schema",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_said(calling, change, words):
    with pytest.raises(openai.BadRequestError) as caught:
        calling.openai.chat.completions.create(stream=True, extra_body=change, **ASK)
    assert words in str(caught.value) and "\n" not in caught.value.body["message"]


def test_calls_in_a_format_that_is_not_known_are_refused(calling):
    tokenizer = calling.engine.pair.tokenizer
    known = tokenizer._tool_parser
    try:
        tokenizer._tool_parser = lambda text, tools=None: json.loads(text)
        with pytest.raises(openai.BadRequestError, match="known are json_tools, qwen3_coder"):
            calling.openai.chat.completions.create(tools=TOOLS, tool_choice="required", **ASK)
    finally:
        tokenizer._tool_parser = known
