"""OpenAI's Responses API over the same engine: what its clients send is read, what they expect is said."""

import json
from typing import get_args

import httpx
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent

from mlx_ddtree import generate
from mlx_ddtree.server.dialects import RESPONSES
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import AnswerTotals, Piece
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.reasonings import Reasonings
from mlx_ddtree.server.responses_reply import ResponsesReply
from mlx_ddtree.server.responses_request import read_responses

from .running import QUESTION, serving
from .test_reading import JSON_CALL, TOOLS, tokenizers  # noqa: F401  (a fixture)

ASK = {"model": "demo", "max_output_tokens": 40, "input": QUESTION[0]["content"]}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Of a city.",
    "parameters": {"type": "object"},
    "strict": None,
}
UNSEEN = "[a block of type 'input_image', which cannot be read here]"
EVENTS = {kind.model_fields["type"].annotation.__args__[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])}


def read(**body):
    return read_responses(json.dumps({"input": "x"} | body).encode())


def chat_of(**body):
    return read(**body).body


def refusal(**body):
    with pytest.raises(ApiError) as caught:
        try:
            read(**body)
        except ApiError as error:
            raise RESPONSES.renamed(error) from None
    assert caught.value.status == 400
    return caught.value


def events_of(text):
    """The events of a stream, each with its own name and number, and of a type that the official client knows."""
    events = []
    for block in filter(None, text.split("\n\n")):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}" and event["sequence_number"] == len(events)
        EVENTS[event["type"]].model_validate(event)
        events.append(event)
    return events


def kinds_of(events):
    """The types in order, each once in a row."""
    kinds = [event["type"].removeprefix("response.") for event in events]
    return [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]


TEXT_EVENTS = [
    *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
    *("content_part.done", "output_item.done"),
]


def test_an_answer_is_the_one_that_generate_gives(site, pair):
    whole = site.http.post("/v1/responses", json=ASK).json()
    expected = generate(pair, QUESTION, 40)
    Response.model_validate(whole)
    (message,) = whole["output"]
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "incomplete")
    assert message["content"] == [{"type": "output_text", "text": expected, "annotations": [], "logprobs": []}]
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["usage"]["output_tokens"] == 40 and whole["usage"]["output_tokens_details"]["reasoning_tokens"] == 0
    events = events_of(site.http.post("/responses", json=ASK | {"stream": True}).text)
    assert kinds_of(events) == ["created", "in_progress", *TEXT_EVENTS, "incomplete"]
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == expected
    last = events[-1]["response"]
    assert last["output"][0]["content"] == message["content"] and last["usage"]["output_tokens"] == 40
    assert last["usage"]["input_tokens_details"]["cached_tokens"] > 0
    assert last["id"] == events[0]["response"]["id"] != whole["id"]


def test_a_complete_answer_says_so(site, pair):
    ask = ASK | {"max_output_tokens": 300, "instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0}
    whole = site.http.post("/v1/responses", json=ask).json()
    assert (whole["status"], whole["incomplete_details"], whole["error"]) == ("completed", None, None)
    messages = [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert whole["output"][0]["content"][0]["text"] == generate(pair, messages, 300)
    assert whole["completed_at"] >= whole["created_at"]
    assert (whole["instructions"], whole["metadata"], whole["store"]) == ("Be brief.", {"a": "b"}, False)
    events = events_of(site.http.post("/v1/responses", json=ask | {"stream": True}).text)
    assert events[-1]["type"] == "response.completed"


def test_the_official_client_reads_it(site, pair):
    expected = generate(pair, QUESTION, 40)
    assert site.openai.responses.create(**ASK).output_text == expected
    chunks = list(site.openai.responses.create(stream=True, **ASK))
    assert "".join(chunk.delta for chunk in chunks if chunk.type == "response.output_text.delta") == expected
    with site.openai.responses.stream(**ASK | {"max_output_tokens": 300}) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == text == generate(pair, QUESTION, 300) and final.status == "completed"
    history = [*QUESTION, *(item.model_dump() for item in final.output), {"role": "user", "content": "And for lists?"}]
    again = site.openai.responses.create(model="demo", input=history, max_output_tokens=5)
    assert again.usage.input_tokens_details.cached_tokens >= final.usage.total_tokens - 2


def test_tokens_are_counted_without_an_answer(site, pair):
    ids = pair.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True)
    counted = site.openai.responses.input_tokens.count(model="demo", input=ASK["input"])
    assert (counted.input_tokens, counted.object) == (len(ids), "response.input_tokens")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "another"}, openai.NotFoundError, "is not served here"),
        ({"input": []}, openai.BadRequestError, "input: nothing is asked"),
        ({"input": "word " * 9000}, openai.BadRequestError, "input: the prompt has .* context ends at 8192"),
        ({"max_output_tokens": 0}, openai.BadRequestError, "max_output_tokens: must be at least 1"),
        ({"previous_response_id": "resp_1"}, openai.BadRequestError, "previous_response_id: answers are not kept"),
        ({"tools": [WEATHER]}, openai.BadRequestError, "no tool calls of this model"),
    ],
)
def test_refusals_are_those_of_openai(site, change, error, words):
    with pytest.raises(error, match=words) as refused:
        site.openai.responses.create(**ASK | change)
    assert refused.value.body["type"] == "invalid_request_error"


def test_nothing_is_kept(site):
    for ask in (site.openai.responses.retrieve, site.openai.responses.delete, site.openai.responses.cancel):
        with pytest.raises(openai.NotFoundError, match="answers are not kept here"):
            ask("resp_1")
    assert chat_of(store=True) == chat_of()


def test_a_key_is_asked_for(engine):
    with serving(engine, api_key="secret") as site, pytest.raises(openai.AuthenticationError):
        site.openai.responses.create(**ASK)


def test_a_conversation_is_read_item_by_item():
    messages = chat_of(
        instructions="Be brief.",
        input=[
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Use tools."}]},
            {"role": "user", "content": "Weather?"},
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "In"}, {"type": "input_text", "text": "Bern."}],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "A tool."}],
            },
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bern"}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** x"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {
                "type": "custom_tool_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "done"}, {"type": "input_image"}],
            },
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Good."}], "encrypted_content": "x"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": "Or yes."},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "And?"},
        ],
    )["messages"]

    def call(number, name, arguments):
        return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}

    calls = [call("c1", "weather", '{"city": "Bern"}'), call("c2", "patch", {"input": "*** x"})]
    assert messages == [
        {"role": "system", "content": "Be brief.\n\nUse tools."},
        {"role": "user", "content": "Weather?\n\nIn\n\nBern."},
        {"role": "assistant", "content": "I look.", "reasoning_content": "A tool.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "rain", "name": "weather"},
        {"role": "tool", "tool_call_id": "c2", "content": f"done\n\n{UNSEEN}", "name": "patch"},
        {"role": "assistant", "content": "No.", "reasoning_content": "Good."},
        {"role": "assistant", "content": "Or yes."},
        {"role": "user", "content": "Be kind.\n\nAnd?"},
    ]


def test_options_are_those_of_chats():
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    request = read(
        tools=[
            WEATHER | {"strict": True},
            {"type": "custom", "name": "patch", "description": "Of files.", "format": grammar},
            {
                "type": "namespace",
                "name": "agents",
                "description": "x",
                "tools": [{"type": "function", "name": "stop"}],
            },
        ],
        tool_choice="none",
        parallel_tool_calls=False,
        reasoning={"effort": "xhigh", "summary": "auto"},
        text={"format": {"type": "text"}},
        **{"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 3, "max_output_tokens": 9, "stream": True},
        chat_template_kwargs={"enable_thinking": False},
    )
    chat = request.body
    names = [tool["function"]["name"] for tool in chat["tools"]]
    assert names == ["weather", "patch", "stop"]
    assert chat["tools"][0]["function"]["parameters"] == {"type": "object"}
    patch = chat["tools"][1]["function"]
    assert 'lark grammar:\nstart: "x"' in patch["description"] and patch["parameters"]["required"] == ["input"]
    assert (chat["tool_choice"], chat["reasoning_effort"], chat["max_tokens"]) == ("none", "xhigh", 9)
    assert (chat["temperature"], chat["top_k"], chat["seed"], request.request.one_call) == (0.5, 5, 3, True)
    assert request.summary and request.request.stream
    echo = request.echo()
    assert (echo["parallel_tool_calls"], echo["temperature"], len(echo["tools"])) == (False, 0.5, 3)


def test_what_says_nothing_about_the_answer_passes():
    chat_of(
        **{
            "store": True,
            "background": False,
            "truncation": "disabled",
            "prompt_cache_key": "x",
            "service_tier": "auto",
        },
        **{"include": ["reasoning.encrypted_content"], "client_metadata": {"a": "b"}, "max_tool_calls": 3, "user": "x"},
        **{"previous_response_id": None, "context_management": [], "stream_options": {"include_obfuscation": False}},
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"background": True}, "background: answers are given while the client waits"),
        ({"conversation": "c"}, "conversation: answers are not kept here; send the whole conversation in input"),
        ({"prompt": {"id": "p"}}, "prompt: no prompts are kept here"),
        ({"truncation": "auto"}, 'truncation: "auto" is not supported here'),
        ({"top_logprobs": 2}, "top_logprobs: log-probabilities are offered by /v1/chat/completions"),
        ({"include": ["message.output_text.logprobs"]}, "include: 'message.output_text.logprobs' is not offered"),
        ({"text": {"verbosity": "low"}}, "text.verbosity: must be 'medium'"),
        ({"temperature": "hot"}, "temperature: must be a number"),
        ({"instructions": 5}, "instructions: must be a text"),
        ({"guided_json": {}}, "guided_json: this request has no such field"),
        ({"tools": [{"type": "web_search"}]}, 'tools.0: "web_search" is run by OpenAI\'s servers'),
        ({"tools": [{"type": "function"}]}, "tools.0.name: is missing"),
        ({"tools": [WEATHER, WEATHER]}, "tools.1.name: another tool has the name 'weather' already"),
        ({"input": 5}, "input: must be a text or a list of items"),
        ({"input": ["x"]}, "input.0: must be an object"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role: must be 'user'"),
        ({"input": [{"role": "user"}]}, "input.0.content: must be a text or a list of blocks"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "a block of type 'input_image' cannot"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0: answers are not kept here"),
        ({"input": [{"type": "computer_call"}]}, "input.0: an item of type 'computer_call' cannot be read here"),
        ({"input": [{"type": "function_call", "call_id": "x", "arguments": "{}"}]}, "input.0.name: must be a text"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(change, words):
    error = refusal(**change)
    assert words in str(error) and error.param == next(iter(change))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "content", "role"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(["input", "tools", "tool_choice", "reasoning", "text", "include", "metadata"]), VALUES)
@example("include", True)
def test_every_refusal_is_one_of_our_sentences(name, value):
    try:
        read(**{name: value})
    except ApiError as error:
        assert "cannot be used" not in str(error)
        assert not any(inner in str(error) for inner in ("Input", "instance", "list[", "str]"))


def reply_of(pieces, reader, reason="stop", **body):
    """A reply that was told these pieces: its whole answer, and its events."""
    told = []
    asked = read(**body)
    reply = ResponsesReply("m", reader, told.append, asked.echo(), asked.tools, asked.summary)
    events = reply.opening()
    for piece in pieces[:-1]:
        events += reply.add(Piece(piece, [], None))
    events += reply.add(Piece(pieces[-1], [], AnswerTotals(reason, 9, 4, 50, 1, 1.0, 1.0, 1.0, {})))
    assert len(told) == 1
    return reply.whole(), events_of("".join(map(reply.sent, events)))


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("summary", [False, True])
def test_reasoning_text_and_calls_are_items(tokenizers, size, summary):  # noqa: F811
    text = f"\nI wonder.\n</think>\n\nI look. {JSON_CALL}\n{JSON_CALL}"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    reader = AnswerReader(tokenizers["json_tools"], "reasoning", TOOLS)
    whole, events = reply_of(pieces, reader, tools=[WEATHER], **({"reasoning": {"summary": "auto"}} if summary else {}))
    Response.model_validate(whole)
    thought, said, call, other = whole["output"]
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert all(item["status"] == "completed" for item in whole["output"])
    assert thought["summary" if summary else "content"][0]["text"] == "I wonder."
    assert said["content"][0]["text"] == "I look."
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Bern"})
    assert call["call_id"] != other["call_id"]
    assert whole["status"] == "completed"
    assert 0 < whole["usage"]["output_tokens_details"]["reasoning_tokens"] < 10
    assert [e["item"] for e in events if e["type"] == "response.output_item.done"] == whole["output"]
    assert events[-1]["response"]["output"] == whole["output"]
    thinking = [
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    if not summary:
        thinking = [kind.replace("output_text", "reasoning_text") for kind in TEXT_EVENTS]
    calling = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert kinds_of(events) == ["created", "in_progress", *thinking, *TEXT_EVENTS, *calling, *calling, "completed"]


def test_custom_tools_and_namespaces_are_called_in_their_own_form(tokenizers):  # noqa: F811
    text = "".join(
        f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'
        for name, arguments in [("patch", '{"input": "*** x"}'), ("patch", '{"other": 1}'), ("stop", "{}")]
    )
    tools = [
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "agents", "description": "x", "tools": [{"type": "function", "name": "stop"}]},
    ]
    whole, events = reply_of([text], AnswerReader(tokenizers["json_tools"], "normal", TOOLS), tools=tools)
    Response.model_validate(whole)
    patch, other, stop = whole["output"]
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "*** x")
    assert other["input"] == '{"other": 1}'
    assert (stop["type"], stop["namespace"], stop["arguments"]) == ("function_call", "agents", "{}")
    assert [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"] == [
        "*** x",
        '{"other": 1}',
    ]


def test_an_answer_that_is_cut_says_where(tokenizers):  # noqa: F811
    whole, events = reply_of(
        ["Hm.</think>", "I lo"], AnswerReader(tokenizers["json_tools"], "reasoning", TOOLS), "length"
    )
    assert [item["status"] for item in whole["output"]] == ["completed", "incomplete"]
    assert events[-1]["type"] == "response.incomplete"


def test_a_failure_in_the_middle_is_an_event(tokenizers):  # noqa: F811
    asked = read()
    reply = ResponsesReply("m", AnswerReader(tokenizers["json_tools"]), None, asked.echo(), asked.tools)
    events = [*reply.opening(), *reply.add(Piece("Well", [], None)), reply.refusal(ApiError(503, "gone"))]
    last = events_of("".join(map(reply.sent, events)))[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": "server_error", "message": "gone"}
    codes = [ApiError(400, "x", code="context_length_exceeded"), ApiError(429, "x"), ApiError(400, "x")]
    assert [e.responses_code for e in codes] == ["context_length_exceeded", "rate_limit_exceeded", "invalid_prompt"]


def test_what_an_answer_thought_is_remembered_for_clients_that_drop_it(tokenizers):  # noqa: F811
    """What comes back as items without reasoning is known as the answer that was given."""
    reasonings = Reasonings()
    question = chat_of(tools=[WEATHER])["messages"]
    before = reasonings.put_back(question)
    reader = AnswerReader(tokenizers["json_tools"], "reasoning", TOOLS)
    reply = ResponsesReply("m", reader, lambda message: reasonings.keep(before, message), {}, read().tools)
    reply.add(Piece(f"I wonder.</think>I look.{JSON_CALL}", [], AnswerTotals("stop", 9, 4, 5, 1, 1.0, 1.0, 1.0, {})))
    items = [item for item in reply.whole()["output"] if item["type"] != "reasoning"]
    result = {"type": "function_call_output", "call_id": items[-1]["call_id"], "output": "rain"}
    messages = chat_of(input=[{"role": "user", "content": "x"}, *items, result])["messages"]
    reasonings.put_back(messages)
    assert messages[1]["reasoning_content"] == "I wonder."


def test_while_nothing_is_said_there_are_events_that_say_nothing(tokenizers):  # noqa: F811
    """Clients that give a silent stream up count events, not comments."""
    asked = read()
    reply = ResponsesReply("m", AnswerReader(tokenizers["json_tools"]), None, asked.echo(), asked.tools)
    sent = "".join(map(reply.sent, reply.opening()))
    assert reply.waiting(5, 9) == ": prompt 5/9\n\n"
    reply._last_sent -= 60
    sent += reply.waiting(6, 9)
    assert reply.waiting(7, 9) == ": prompt 7/9\n\n"
    sent += "".join(map(reply.sent, reply.add(Piece("Well", [], None))))
    reply._last_sent -= 60
    sent += reply.waiting()
    assert kinds_of(events_of(sent)) == ["created", "in_progress", *TEXT_EVENTS[:3]]
    assert [e["delta"] for e in events_of(sent) if "delta" in e] == ["Well", ""]
    last = Piece(f".{JSON_CALL}", [], AnswerTotals("stop", 9, 4, 50, 1, 1.0, 1.0, 1.0, {}))
    sent += "".join(map(reply.sent, reply.add(last)))
    answer = httpx.Response(200, text=sent, headers={"content-type": "text/event-stream"})
    http = httpx.Client(transport=httpx.MockTransport(lambda request: answer))
    with (
        openai.OpenAI(api_key="x", http_client=http) as client,
        client.responses.stream(model="m", input="x") as stream,
    ):
        final = stream.get_final_response()
    assert final.output_text == "Well." and final.output[1].arguments == '{"city": "Bern"}'
