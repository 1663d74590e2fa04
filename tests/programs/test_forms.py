"""Answers of a given form on the command line."""

import json
import re

import pytest

from mlx_ddtree.programs.generate import main

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "kind": {"enum": ["function", "class"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}
ASK = ("--prompt", "Write a function that counts vowels.", "-m", "60")


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_schema_is_a_file_or_a_text(capsys, tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA, indent=2))
    answers = []
    for given in (str(file), json.dumps(SCHEMA)):
        code, out, _ = run(capsys, *ASK, "--json-schema", given)
        answers.append(out)
        assert code == 0 and json.loads(out)["kind"] in ("function", "class")
    assert answers[0] == answers[1]


def test_a_regular_expression_and_a_grammar(capsys, tmp_path):
    _, out, _ = run(capsys, *ASK, "--method", "ar", "--regex", "[a-z]{3,9}: (yes|no)")
    assert re.fullmatch("[a-z]{3,9}: (yes|no)\n", out)
    file = tmp_path / "pairs.lark"
    file.write_text('start: "(" /[a-z]{2,5}/ ")"')
    _, out, _ = run(capsys, *ASK, "--method", "ar", "--grammar", str(file), "--json")
    assert re.fullmatch(r"\([a-z]{2,5}\)", json.loads(out)["text"])


def test_all_methods_say_the_same(capsys):
    code, out, _ = run(capsys, *ASK, "--compare", "--json-schema", json.dumps(SCHEMA))
    assert code == 0
    assert all(line.endswith("yes") for line in out.splitlines()[-3:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--regex", "(a"), "the regular expression cannot be used"),
        (("--json-schema", "no/such/file"), "the JSON schema no/such/file does not exist"),
        (("--grammar", "no/such/file"), "the grammar no/such/file does not exist"),
        (("--regex", "a", "--json-schema", "{}"), "give one of json_schema, regex"),
        (("--regex", "a", "--n", "2", "--temp", "1"), "follow no grammar"),
    ],
)
def test_what_cannot_be_followed_is_said_in_one_line(capsys, options, words):
    code, out, err = run(capsys, *ASK, *options)
    assert code != 0 and out == ""
    assert words in err and len(err.strip().splitlines()) == 1
