"""What a grammar may be: everything wrong with one is said when it is made, in one line."""

import pytest

from mlx_ddtree import Grammar, OptionError
from mlx_ddtree.grammar.grammar import MOST_BYTES


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Grammar.json_schema("nonsense"), "the JSON schema is not valid JSON"),
        (lambda: Grammar.json_schema("[1]"), "the JSON schema does not hold a JSON object"),
        (lambda: Grammar.json_schema('{"not": ' * 70 + "{}" + "}" * 70), "the JSON schema is nested too deeply"),
        (lambda: Grammar("json_schema", "nonsense"), "the JSON schema is no JSON object"),
        (lambda: Grammar.json_schema({"type": "objekt"}), "the JSON schema cannot be used: Invalid type: objekt"),
        (lambda: Grammar.json_schema({"not": {}}), 'Unimplemented keys: ["not"]'),
        (lambda: Grammar.json_schema({"$ref": "http://example.com/x.json"}), "not present in a registry"),
        (lambda: Grammar.json_schema({"type": "object", "properties": {"a": False}, "required": ["a"]}), "Unsatisf"),
        (lambda: Grammar.regex("(a"), "the regular expression cannot be used"),
        (lambda: Grammar.regex("(?=a)b"), "look-around"),
        (lambda: Grammar.regex("\ud800"), "halves of characters"),
        (lambda: Grammar.lark("start: foo"), 'the grammar cannot be used: at 1(8): unknown name: "foo"'),
        (lambda: Grammar.lark("x" * (MOST_BYTES + 1)), "more than 1 MiB"),
        (lambda: Grammar("gbnf", "x"), "choose one of json_schema, regex, lark"),
        (lambda: Grammar("regex", 5), "must be a text, not a int"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(make, said):
    with pytest.raises(OptionError) as caught:
        make()
    message = str(caught.value)
    assert said in message
    assert "\n" not in message and len(message) < 400


def test_equal_grammars_are_equal():
    """It is a value: options that hold it can be compared and kept."""
    assert Grammar.json_schema({"type": "object"}) == Grammar.json_object()
    assert len({Grammar.regex("a"), Grammar.regex("a"), Grammar.regex("b")}) == 2


def test_a_huge_schema_is_refused_quickly():
    branches = [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(6)]} for i in range(8)]
    with pytest.raises(OptionError, match="schema too large"):
        Grammar.json_schema({"allOf": branches})
