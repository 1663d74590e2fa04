"""Tool calls end to end: Qwen3's and Hermes' templates, a scripted model, and the same answer in all three APIs."""

import json

import pytest

from .running import serving, started
from .scripted import ScriptedEngine, scripted_pair, template_of
from .test_messages import events_of as messages_events
from .test_messages import whole_of
from .test_responses import events_of as responses_events

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
QUESTION = "Is it cold in Bern?"
APIS = ("chat", "messages", "responses")
THREE = pytest.mark.parametrize("api", APIS)


def written(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


BERN, NOW = written("weather", city="Bern"), written("now")


@pytest.fixture(scope="module", params=["qwen3", "hermes"])
def site(request):
    engine = ScriptedEngine(lambda: scripted_pair(template_of(request.param)), None)
    with started(engine), serving(engine) as site:
        yield site


class Chat:
    """How the chat API asks, and how its answers read."""

    path = "/v1/chat/completions"

    def body(self, history, tools, **more):
        functions = [{"type": "function", "function": tool} for tool in tools]
        return {"messages": history, "tools": functions, "max_tokens": 400} | more

    def asked(self, text):
        return [{"role": "user", "content": text}]

    def answered(self, answer):
        return [answer["choices"][0]["message"]]

    def results(self, calls):
        return [{"role": "tool", "tool_call_id": number, "content": f"{name}: 7"} for number, name, _ in calls]

    def read(self, answer):
        message = answer["choices"][0]["message"]
        calls = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])]
        return message.get("reasoning_content", ""), message["content"] or "", calls

    def streamed(self, text):
        deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in text.splitlines() if line[:7] == "data: {"]
        calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
        assert [call["index"] for call in calls] == list(range(len(calls)))
        said = {name: "".join(delta.get(name) or "" for delta in deltas) for name in ("content", "reasoning_content")}
        return self.read({"choices": [{"message": said | {"tool_calls": calls}}]})

    only_one = {"parallel_tool_calls": False}


class Messages:
    """How Anthropic's API asks, and how its answers read."""

    path = "/v1/messages"

    def body(self, history, tools, **more):
        given = [{k: v for k, v in tool.items() if k != "parameters"} for tool in tools]
        for tool, whole in zip(given, tools, strict=True):
            tool["input_schema"] = whole["parameters"]
        return {"messages": history, "tools": given, "max_tokens": 400} | more

    def asked(self, text):
        return [{"role": "user", "content": text}]

    def answered(self, answer):
        return [{"role": "assistant", "content": answer["content"]}]

    def results(self, calls):
        blocks = [{"type": "tool_result", "tool_use_id": number, "content": f"{name}: 7"} for number, name, _ in calls]
        return [{"role": "user", "content": blocks}]

    def read(self, answer):
        blocks = answer["content"]
        calls = [(b["id"], b["name"], json.dumps(b["input"])) for b in blocks if b["type"] == "tool_use"]
        return *("".join(b.get(kind, "") for b in blocks) for kind in ("thinking", "text")), calls

    def streamed(self, text):
        return self.read({"content": whole_of(messages_events(text))})

    only_one = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}


class Responses:
    """How the Responses API asks, and how its answers read."""

    path = "/v1/responses"

    def body(self, history, tools, **more):
        given = [{"type": "function", "strict": None} | tool for tool in tools]
        return {"input": history, "tools": given, "max_output_tokens": 400} | more

    def asked(self, text):
        return [{"role": "user", "content": text}]

    def answered(self, answer):
        return answer["output"]

    def results(self, calls):
        return [
            {"type": "function_call_output", "call_id": number, "output": f"{name}: 7"} for number, name, _ in calls
        ]

    def read(self, answer):
        items = answer["output"]
        calls = [(i["call_id"], i["name"], i["arguments"]) for i in items if i["type"] == "function_call"]
        texts = {
            kind: [p["text"] for i in items if i["type"] == kind for p in i["content"]]
            for kind in ("reasoning", "message")
        }
        return "".join(texts["reasoning"]), "".join(texts["message"]), calls

    def streamed(self, text):
        events = responses_events(text)
        arguments = [e["delta"] for e in events if e["type"] == "response.function_call_arguments.delta"]
        read = self.read({"output": [e["item"] for e in events if e["type"] == "response.output_item.done"]})
        assert arguments == [text for _, _, text in read[2]]
        return read

    only_one = {"parallel_tool_calls": False}


DIALECTS = {"chat": Chat(), "messages": Messages(), "responses": Responses()}
TOOLS = [{"name": "weather", "description": "Of a city.", "parameters": WEATHER}, {"name": "now", "parameters": {}}]


def answers(site, api, said, history=None, **more):
    """What a client makes of a scripted answer, (reasoning, content, calls): whole and streamed, which are alike."""
    dialect = DIALECTS[api]
    site.engine.script = said if callable(said) else lambda prompt: said
    body = dialect.body(history or dialect.asked(QUESTION), TOOLS, **more)
    whole = site.http.post(dialect.path, json=body)
    assert whole.status_code == 200, whole.text
    streamed = dialect.streamed(site.http.post(dialect.path, json=body | {"stream": True}).text)
    read = dialect.read(whole.json())
    assert without_ids(streamed) == without_ids(read)
    return whole.json(), read


def without_ids(read):
    *texts, calls = read
    return [text.strip() for text in texts], [(name, json.loads(arguments)) for _, name, arguments in calls]


@THREE
def test_a_tool_loop(site, api):
    """Several calls in an answer, their results in the template's own form, and an answer to them; nothing twice."""
    dialect = DIALECTS[api]

    def script(prompt):
        return "<think>Good.</think>Yes, 7." if "weather: 7" in prompt else f"<think>Hm.</think>I look.\n{BERN}\n{NOW}"

    first, (reasoning, content, calls) = answers(site, api, script)
    assert (reasoning, content.strip()) == ("Hm.", "I look.")
    assert [(name, json.loads(text)) for _, name, text in calls] == [("weather", {"city": "Bern"}), ("now", {})]
    history = [*dialect.asked(QUESTION), *dialect.answered(first), *dialect.results(calls)]
    _, (reasoning, content, calls) = answers(site, api, script, history)
    assert (reasoning, content, calls) == ("Good.", "Yes, 7.", [])
    prompt = site.engine.prompts[-1]
    assert '{"type": "function", "function": {"name": "weather", "description": ' in prompt
    assert f"{BERN}\n{NOW}<|im_end|>" in prompt
    assert "<tool_response>\nweather: 7\n</tool_response>\n<tool_response>\nnow: 7\n</tool_response>" in prompt


@THREE
def test_a_call_within_reasoning_is_one_and_the_reasoning_goes_on(site, api):
    _, (reasoning, content, calls) = answers(site, api, f"<think>Let me see. {BERN}Cold.</think>Yes.")
    assert ("".join(reasoning.split()), content) == ("Letmesee.Cold.", "Yes.")
    assert [name for _, name, _ in calls] == ["weather"]


@THREE
@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"city": }}\n</tool_call>',
        '<tool_call>\n{"name": "weather"}\n</tool_call>',
        '<tool_call>\n{"name": "weather", "arguments": {"ci',
    ],
)
def test_what_is_no_call_is_text_where_it_stood(site, api, broken):
    _, (reasoning, content, calls) = answers(site, api, f"<think>Hm.</think>So: {broken}")
    assert (reasoning, content, calls) == ("Hm.", f"So: {broken}", [])
    _, (reasoning, content, calls) = answers(site, api, f"<think>So: {broken}")
    assert (reasoning, content, calls) == (f"So: {broken}", "", [])


@THREE
def test_an_answer_may_be_asked_to_end_with_its_first_call(site, api):
    whole, (_, content, calls) = answers(site, api, f"Hm. {BERN}\n{NOW} And more.", **DIALECTS[api].only_one)
    assert (content.strip(), [name for _, name, _ in calls]) == ("Hm.", ["weather"])
    assert "stop_sequence" not in whole or (whole["stop_reason"], whole["stop_sequence"]) == ("tool_use", None)
    broken = "Hm. <tool_call>\nno\n</tool_call> And more."
    _, (_, content, calls) = answers(site, api, broken, **DIALECTS[api].only_one)
    assert (content, calls) == ("Hm. <tool_call>\nno\n</tool_call>", [])


@pytest.mark.parametrize("site", ["qwen3"], indirect=True)  # Hermes' template needs tools
def test_other_answers_are_not_ended_by_what_ends_calls(site):
    site.engine.script = lambda prompt: f"{BERN}\n{NOW}"
    chat = {"messages": Chat().asked(QUESTION), "parallel_tool_calls": False}
    said = site.http.post("/v1/chat/completions", json=chat).json()["choices"][0]
    assert len(said["message"]["tool_calls"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("site", ["qwen3"], indirect=True)
def test_a_stream_says_that_it_is_alive_while_a_long_call_is_written(site):
    site.engine.script = lambda prompt: written("weather", city=" ".join(map(str, range(3000))))
    body = Chat().body(Chat().asked(QUESTION), TOOLS, stream=True, max_tokens=9000)
    text = site.http.post("/v1/chat/completions", json=body).text
    assert text.count(": still here") >= 1
    assert len(Chat().streamed(text)[2]) == 1
