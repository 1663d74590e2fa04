"""Forced calls are what the model's own parser reads, whatever the model would have said."""

import json
import random

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tool_parsers import json_tools, mistral, qwen3_coder

from mlx_ddtree import Grammar, OptionError
from mlx_ddtree.grammar.tool_calls import call_grammar
from mlx_ddtree.grammar.vocabulary import Vocabulary
from mlx_ddtree.grammar.walk import GrammarWalk

from .pairs import EOS, byte_tokenizer
from .test_walk import allowed

FUNCTIONS = [
    {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 5},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
                "unit": {"enum": ["C", "F"]},
                "exact": {"$ref": "#/$defs/truth"},
                "note": {"type": "string", "maxLength": 3, "format": "of-nobody-knows-what"},
            },
            "required": ["city", "days", "unit"],
            "additionalProperties": False,
            "$defs": {"truth": {"type": "boolean"}},
        },
    },
    {"name": "now"},
]


def caller(parser, marks_are_tokens=False, special=False):
    """A tokenizer whose model calls tools in a parser's format."""
    hf = byte_tokenizer()._tokenizer
    if marks_are_tokens:
        hf.add_tokens([parser.tool_call_start, parser.tool_call_end], special_tokens=special)
    return TokenizerWrapper(
        hf,
        eos_token_ids=[EOS],
        tool_parser=parser.parse_tool_call,
        tool_call_start=parser.tool_call_start,
        tool_call_end=parser.tool_call_end,
    )


def spoken(tokenizer, seed, **how):
    """A text that a model without any preference says under the grammar; texts come to their end soon."""
    vocabulary = Vocabulary(tokenizer._tokenizer, [EOS], len(tokenizer._tokenizer))
    grammar = call_grammar(tokenizer, vocabulary, FUNCTIONS, **how)
    walk = GrammarWalk(vocabulary, vocabulary.matcher(grammar))
    draw = random.Random(seed)
    enough = tokenizer.encode("\n</parameter>", add_special_tokens=False)
    ids = []
    while len(ids) < 400:
        now = allowed(walk)
        if EOS in now:
            return tokenizer.decode(ids)
        ids += enough if len(now) > 150 and enough[0] in now and draw.random() < 0.5 else [draw.choice(sorted(now))]
        walk.stand(ids)
    raise AssertionError(tokenizer.decode(ids))


@pytest.mark.parametrize("parser", [json_tools, qwen3_coder], ids=["json_tools", "qwen3_coder"])
@pytest.mark.parametrize("marks", [(False, False), (True, False), (True, True)])
def test_a_forced_call_can_be_parsed(parser, marks):
    """Marks may be plain text, tokens of text, or tokens that stand for none."""
    tokenizer = caller(parser, *marks)
    names = set()
    tools = [{"type": "function", "function": function} for function in FUNCTIONS]
    for seed in range(6):
        text = spoken(tokenizer, seed, several=False)
        assert text.startswith(parser.tool_call_start) and text.endswith(parser.tool_call_end)
        body = text.removeprefix(parser.tool_call_start).removesuffix(parser.tool_call_end)
        call = parser.parse_tool_call(body.strip(), tools)
        names.add(call["name"])
        if call["name"] == "weather":
            assert (
                {"city", "days", "unit"} <= call["arguments"].keys() <= FUNCTIONS[0]["parameters"]["properties"].keys()
            )
            assert call["arguments"]["days"] in range(1, 10) and call["arguments"]["unit"] in ("C", "F")
        else:
            assert call == {"name": "now", "arguments": {}}
    assert names == {"weather", "now"}


def test_marks_that_are_tokens_are_said_as_tokens():
    tokenizer = caller(json_tools, marks_are_tokens=True)
    vocabulary = Vocabulary(tokenizer._tokenizer, [EOS], len(tokenizer._tokenizer))
    walk = GrammarWalk(vocabulary, vocabulary.matcher(call_grammar(tokenizer, vocabulary, FUNCTIONS, several=True)))
    assert walk.forced(1) == [tokenizer.convert_tokens_to_ids("<tool_call>")]


def test_json_may_be_said_in_place_of_calls():
    texts = {
        spoken(caller(json_tools), seed, several=True, answer=Grammar.json_schema({"enum": [5]})) for seed in range(8)
    }
    assert "5" in texts and any(text.startswith("<tool_call>") for text in texts)
    assert all(text == "5" or json.loads(text.split("\n")[1]) for text in texts)


def test_what_is_not_known_is_refused_by_name():
    vocabulary = Vocabulary(byte_tokenizer()._tokenizer, [EOS], 300)
    with pytest.raises(OptionError, match="format, mistral; known are json_tools, qwen3_coder"):
        call_grammar(caller(mistral), vocabulary, FUNCTIONS, several=False)
    with pytest.raises(OptionError, match="JSON only"):
        call_grammar(caller(json_tools), vocabulary, FUNCTIONS, several=False, answer=Grammar.regex("a"))
    with pytest.raises(OptionError, match="Invalid type"):
        call_grammar(caller(json_tools), vocabulary, [{"name": "f", "parameters": {"type": "x"}}], several=False)
