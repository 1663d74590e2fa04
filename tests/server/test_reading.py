"""Tool calls and reasoning: mlx-lm's own parsers, whatever the pieces in which the text comes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import generate, load
from mlx_ddtree.server.reading import AnswerReader

from .running import QUESTION, make_engine, serving, started
from .scripted import tokenizer_with

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]
JSON_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'
CODER_CALL = "<tool_call>\n<function=weather>\n<parameter=city>\nBern\n</parameter>\n</function>\n</tool_call>"
MISTRAL_CALL = '[TOOL_CALLS]weather[ARGS]{"city": "Bern"}'
TEMPLATES = {  # what mlx-lm recognises the families by
    "json_tools": ("<tool_call>{{ tool_call.name }}", JSON_CALL),
    "qwen3_coder": ("<tool_call>\n<function=", CODER_CALL),
    "mistral": ("[TOOL_CALLS]", MISTRAL_CALL),
}


@pytest.fixture(scope="module")
def tokenizers():
    """The embedded model's, with the template and the thinking tokens of other families."""
    return {name: tokenizer_with(template) for name, (template, _) in TEMPLATES.items()}


def read(tokenizer, pieces, state="normal"):
    """(content, reasoning, calls, as it came: the kinds in order)."""
    reader = AnswerReader(tokenizer, state, TOOLS)
    parts = [part for i, piece in enumerate(pieces) for part in reader.feed(piece, last=i == len(pieces) - 1)]
    content = "".join(p.text for p in parts if p.kind == "content")
    reasoning = "".join(p.text for p in parts if p.kind == "reasoning")
    calls = [(p.call["function"]["name"], json.loads(p.call["function"]["arguments"])) for p in parts if p.call]
    assert [p.call["index"] for p in parts if p.call] == list(range(reader.calls))
    return content, reasoning, calls


@pytest.mark.parametrize("family", TEMPLATES)
@settings(max_examples=30)
@given(data=st.data())
def test_every_cut_of_the_text_reads_the_same(tokenizers, family, data):
    tokenizer, call = tokenizers[family], TEMPLATES[family][1]
    text = f"<think>Is <it> cold?</think>I look.{call}"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(tokenizer, pieces) == ("I look.", "Is <it> cold?", [("weather", {"city": "Bern"})])


def test_several_calls_and_what_stands_between(tokenizers):
    text = f"{JSON_CALL}{JSON_CALL}\nand{JSON_CALL}."
    content, _, calls = read(tokenizers["json_tools"], [text])
    assert (content, len(calls)) == ("\nand.", 3)


def test_templates_may_begin_the_reasoning(tokenizers):
    content, reasoning, _ = read(tokenizers["json_tools"], ["Hm.</thi", "nk>Yes."], "reasoning")
    assert (content, reasoning) == ("Yes.", "Hm.")


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "weather", "arg',  # the limit came first
        "<tool_call>not JSON</tool_call> then",
        '<tool_call>{"name": "weather"}</tool_call>',  # no arguments
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        "<tool_call>[1, 2]</tool_call>",
        "5 < 6 <tool",
    ],
)
def test_what_is_no_call_is_not_lost(tokenizers, text):
    assert read(tokenizers["json_tools"], list(text)) == (text, "", [])


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_a_plain_text_passes(pair, text):
    reader = AnswerReader(pair.tokenizer)
    parts = [p for c in text for p in reader.feed(c)] + reader.feed("", last=True)
    assert "".join(p.text for p in parts) == text


def test_the_server_hands_them_out(pair):
    """The embedded model neither thinks nor calls, so pieces of what it says stand for the markers."""

    def load_with_markers():
        loaded = load()
        tokenizer = loaded.tokenizer
        tokenizer._think_start, tokenizer._think_end = "```python\n", '    """'
        tokenizer._think_start_tokens = tuple(tokenizer.encode("```python\n"))
        tokenizer._think_end_tokens = tuple(tokenizer.encode('    """'))
        tokenizer._tool_call_start, tokenizer._tool_call_end = '"""\n', "\n```"
        tokenizer._tool_parser = lambda text, tools: {"name": tools[0]["function"]["name"], "arguments": {"text": text}}
        return loaded

    text = generate(pair, QUESTION, 200, method="ar")
    reasoning, _, rest = text.removeprefix("```python\n").partition('    """')
    content, _, rest = rest.partition('"""\n')
    called, _, after = rest.partition("\n```")
    assert reasoning and content and called, text
    with started(make_engine(load_with_markers, method="ar")) as engine, serving(engine) as site:
        ask = {"model": "demo", "messages": QUESTION, "max_tokens": 200, "tools": TOOLS}
        whole = site.openai.chat.completions.create(**ask).choices[0]
        assert whole.finish_reason == "tool_calls"
        assert whole.message.content == content + after
        assert whole.message.model_extra["reasoning_content"] == reasoning
        (call,) = whole.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"text": called})
        chunks = [c.choices[0] for c in site.openai.chat.completions.create(stream=True, **ask)]
        assert "".join(c.delta.content or "" for c in chunks) == content + after
        assert "".join(c.delta.model_extra.get("reasoning_content", "") for c in chunks) == reasoning
        (streamed,) = [call for c in chunks for call in c.delta.tool_calls or []]
        assert (streamed.index, streamed.function.arguments) == (0, call.function.arguments)
        assert chunks[-1].finish_reason == "tool_calls"
        history = [*QUESTION, whole.message.model_dump(exclude_none=True), {"role": "tool", "content": "7"}]
        assert site.openai.chat.completions.create(**ask | {"messages": history}).choices
