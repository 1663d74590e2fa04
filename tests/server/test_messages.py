"""Anthropic's Messages API over the same engine: what its clients send is read, what they expect is said."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree import generate
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import AnswerTotals, Piece
from mlx_ddtree.server.messages_reply import MessagesReply
from mlx_ddtree.server.messages_request import parse_messages
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.reasonings import Reasonings

from ..talks import talking_pair
from .running import QUESTION, serving
from .test_reading import JSON_CALL, TOOLS, tokenizers  # noqa: F401  (a fixture)

ASK = {"model": "demo", "max_tokens": 40, "messages": QUESTION}
WEATHER = {"name": "weather", "description": "Of a city.", "input_schema": {"type": "object", "properties": {}}}


def chat_of(**body):
    return parse_messages(json.dumps(ASK | body).encode())[1]


def refusal(**body):
    with pytest.raises(ApiError) as caught:
        chat_of(**body)
    assert caught.value.status == 400
    return str(caught.value)


def events_of(text):
    """The events of a stream, each with its own name."""
    events = []
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] != "ping":
            events.append(event)
    return events


def test_an_answer_is_the_one_that_generate_gives(site, pair):
    whole = site.http.post("/v1/messages?beta=true", json=ASK).json()
    expected = generate(pair, QUESTION, 40)
    assert whole["content"] == [{"type": "text", "text": expected}]
    assert (whole["type"], whole["role"], whole["model"]) == ("message", "assistant", "demo")
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("max_tokens", None)
    assert whole["usage"]["output_tokens"] == 40
    events = events_of(site.http.post("/messages", json=ASK | {"stream": True}).text)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert "".join(event["delta"]["text"] for event in events[2:-3]) == expected
    usage = events[-2]["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == events[0]["message"]["usage"]["input_tokens"]
    assert usage["cache_read_input_tokens"] > 0


def test_a_begun_answer_is_taken_further(site, pair):
    begun = "```python\ndef count_"
    answer = site.http.post(
        "/v1/messages", json=ASK | {"messages": [*QUESTION, {"role": "assistant", "content": begun}]}
    )
    ids = pair.tokenizer.apply_chat_template(
        [*QUESTION, {"role": "assistant", "content": begun}], add_generation_prompt=False, continue_final_message=True
    )
    assert answer.json()["content"][0]["text"] == generate(pair, ids, 40)


def test_a_stop_sequence_is_named(site):
    answer = site.http.post("/v1/messages", json=ASK | {"max_tokens": 200, "stop_sequences": ["return", "nowhere"]})
    assert (answer.json()["stop_reason"], answer.json()["stop_sequence"]) == ("stop_sequence", "return")


def test_tokens_are_counted_without_an_answer(site, pair):
    ids = pair.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)
    body = {"model": "claude-some-model", "messages": QUESTION}
    assert site.http.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": len(ids)}
    long = [{"role": "user", "content": "word " * 9000}]
    assert site.http.post("/v1/messages/count_tokens", json=body | {"messages": long}).json()["input_tokens"] > 8192


@pytest.mark.parametrize(
    ("change", "status", "kind", "words"),
    [
        (
            {"messages": [{"role": "user", "content": "word " * 9000}]},
            400,
            "invalid_request_error",
            "prompt is too long",
        ),
        ({"model": "another"}, 404, "not_found_error", "is not served here"),
        ({"messages": []}, 400, "invalid_request_error", "messages: must not be empty"),
        ({"tools": [WEATHER]}, 400, "invalid_request_error", "no tool calls of this model"),
    ],
)
def test_refusals_have_this_apis_form(site, change, status, kind, words):
    refused = site.http.post("/v1/messages", json=ASK | change)
    assert refused.status_code == status
    assert refused.json()["type"] == "error" and refused.json()["error"]["type"] == kind
    assert words in refused.json()["error"]["message"]


def test_a_key_may_come_in_this_apis_header(engine):
    with serving(engine, api_key="secret") as site:
        refused = site.http.post("/v1/messages", json=ASK)
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        assert site.http.post("/v1/messages", json=ASK, headers={"x-api-key": "secreT"}).status_code == 401
        assert site.http.post("/v1/messages", json=ASK, headers={"x-api-key": "secret"}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_reads_it(site, pair, stream):
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=site.url, api_key="none", max_retries=0) as client:
        if stream:
            with client.messages.stream(**ASK) as answer:
                text, message = "".join(answer.text_stream), answer.get_final_message()
            assert text == message.content[0].text
        else:
            message = client.messages.create(**ASK)
        assert message.content[0].text == generate(pair, QUESTION, 40)
        assert client.messages.count_tokens(model="demo", messages=QUESTION).input_tokens > 0
        with pytest.raises(anthropic.NotFoundError, match="is not served here"):
            client.messages.create(**ASK | {"model": "another"})


def test_a_conversation_is_read_block_by_block():
    chat = chat_of(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "text", "text": "In Bern."}]},
            {"role": "system", "content": "Use tools."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "A tool.", "signature": "x"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "gone", "is_error": True},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
    )
    call = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    assert chat["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?\n\nIn Bern.\n\nUse tools."},
        {"role": "assistant", "content": "I look.", "reasoning_content": "A tool.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "rain", "name": "weather"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: gone"},
        {"role": "user", "content": "And?"},
    ]
    assert "continue_final_message" not in chat


def test_options_are_those_of_chats():
    chat = chat_of(
        tools=[WEATHER | {"strict": True, "defer_loading": True}],
        tool_choice={"type": "none"},
        stop_sequences=["x"],
        top_k=5,
        thinking={"type": "disabled"},
        output_config={"effort": "xhigh"},
    )
    function = {"name": "weather", "description": "Of a city.", "parameters": WEATHER["input_schema"]}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert (chat["tool_choice"], chat["stop"], chat["top_k"]) == ("none", ["x"], 5)
    assert chat["chat_template_kwargs"] == {"enable_thinking": False} and chat["reasoning_effort"] == "xhigh"
    assert chat_of(thinking={"type": "enabled", "budget_tokens": 9})["chat_template_kwargs"] == {
        "enable_thinking": True
    }


def test_what_says_nothing_about_the_answer_passes():
    for name in ("metadata", "context_management", "service_tier", "a_field_of_tomorrow", "container"):
        chat_of(**{name: None if name == "container" else {"x": 1}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"container": "c"}, "container: code is not run here"),
        ({"mcp_servers": [{}]}, "mcp_servers: the server calls no other servers"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema: is missing"),
        ({"output_format": {"type": "xml", "schema": {}}}, "output_format.type: must be 'json_schema'"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: is missing"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools.0: 'web_search_20250305' is run by",
        ),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema: is missing"),
        ({"max_tokens": 0}, "max_tokens: must be at least 1"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"system": [{"type": "image"}]}, "system.0: a block of type 'image' cannot be read"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: must be 'user' or 'assistant'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: must be a text or a list of blocks"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0: must be a block"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            "a block of type 'document' cannot be read",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text: must be a text"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(change, words):
    assert words in refusal(**change)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "role"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(["messages", "system", "tools", "tool_choice", "thinking", "output_config"]), VALUES)
def test_every_refusal_is_one_of_our_sentences(name, value):
    try:
        chat_of(**{name: value})
    except ApiError as error:
        assert "cannot be used" not in str(error)
        assert not any(inner in str(error) for inner in ("Input", "instance", "list[", "str]"))


def reply_of(pieces, reader, thinks=True, reason="stop"):
    """A reply that was told these pieces: its whole answer, and its events."""
    told = []
    reply = MessagesReply("m", reader, told.append, 9, thinks)
    events = reply.opening()
    for piece in pieces[:-1]:
        events += reply.add(Piece(piece, [], None))
    events += reply.add(Piece(pieces[-1], [], AnswerTotals(reason, 9, 4, 5, 1, 1.0, 1.0, 1.0, {})))
    assert len(told) == 1
    return reply.whole(), events_of("".join(map(reply.sent, events)))


def whole_of(events):
    """The blocks that a client puts together from events."""
    blocks = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"] | ({"input": ""} if "input" in event["content_block"] else {}))
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "input"}[delta["type"]]
            blocks[event["index"]][field] += delta.get(field, delta.get("partial_json"))
    return [block | ({"input": json.loads(block["input"])} if "input" in block else {}) for block in blocks]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_thinking_text_and_calls_are_blocks(tokenizers, size):  # noqa: F811
    text = f"\nI wonder.\n</think>\n\nI look. {JSON_CALL}"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    whole, events = reply_of(pieces, AnswerReader(tokenizers["json_tools"], "reasoning", TOOLS))
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use"]
    thought, said, call = whole["content"]
    assert (thought["thinking"], said["text"]) == ("I wonder.", "I look.")
    assert (call["name"], call["input"]) == ("weather", {"city": "Bern"}) and call["id"]
    assert whole["stop_reason"] == "tool_use"
    assert whole["usage"] == {
        **{"input_tokens": 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0, "output_tokens": 5}
    }
    assert whole_of(events) == whole["content"]
    assert [event["type"] for event in events].count("content_block_stop") == 3
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_thinking_that_nobody_asked_for_is_dropped():
    pair = talking_pair("qwen3", drafter=False)
    whole, events = reply_of(["I wonder.</think>", "Yes."], AnswerReader(pair.tokenizer, "reasoning"), thinks=False)
    assert whole["content"] == [{"type": "text", "text": "Yes."}] == whole_of(events)
    assert whole["stop_reason"] == "end_turn"


def test_what_an_answer_thought_is_remembered_for_clients_that_drop_it():
    chat = chat_of(messages=[*QUESTION, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Sure?"}])
    reasonings = Reasonings()
    before = reasonings.put_back(chat["messages"][:1])
    reasonings.keep(before, {"role": "assistant", "content": "Yes.", "reasoning_content": "I wonder."})
    reasonings.put_back(chat["messages"])
    assert chat["messages"][1]["reasoning_content"] == "I wonder."
