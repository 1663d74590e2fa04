"""Reading training files: every form of a row, and one line for what is none."""

import json

import pytest

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.training.chat_format import ChatFormat
from mlx_ddtree.training.examples import DataError
from mlx_ddtree.training.reading import read_examples

from .tiny import EOS, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def chat_format(tokenizer):
    return ChatFormat(tokenizer)


def write(folder, name, *lines):
    file = folder / name
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return file


def test_text_files_are_cut_in_windows_without_a_prompt(tmp_path, tokenizer, chat_format):
    examples = read_examples([write(tmp_path, "a.txt", "abcdefghij"), write(tmp_path, "b.py", "x: y")], chat_format, 4)
    assert [tokenizer.decode(list(e.response_tokens)) for e in examples] == ["abcd", "efgh", "ij", "x: y"]
    assert all(e.prompt_tokens == () and e.start == 0 for e in examples)


def test_rows_of_every_kind(tmp_path, tokenizer, chat_format):
    file = write(
        tmp_path,
        "rows.jsonl",
        {"prompt": "hi"},
        "",
        {"prompt": "hi", "response": "yes"},
        {"messages": [{"role": "user", "content": "q"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no"}]},
        {"text": "some text"},
    )
    asked, answered, talk, told, text = read_examples([file], chat_format, 100)
    assert tokenizer.decode(list(asked.prompt_tokens)) == "u: hi\na: "
    assert asked.response_tokens is None
    assert answered.prompt_tokens == asked.prompt_tokens
    assert tokenizer.decode(list(answered.response_tokens[:-1])) == "yes"
    assert answered.response_tokens[-1] == EOS
    assert talk.response_tokens is None
    assert tokenizer.decode(list(told.response_tokens[:-1])) == "no"
    assert told.prompt_tokens == talk.prompt_tokens  # the answer is no part of what is asked
    assert told.start == len(told.prompt_tokens) - 1
    assert text.prompt_tokens == ()
    assert answered.source == f"{file}:3"


def test_without_a_chat_template_the_prompt_is_its_text(tmp_path):
    tokenizer = make_tokenizer(chat=False)
    (example,) = read_examples([write(tmp_path, "p.jsonl", {"prompt": "hi"})], ChatFormat(tokenizer), 9)
    assert tokenizer.decode(list(example.prompt_tokens)) == "hi"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "  \n", "empty.txt is empty"),
        ("one.txt", "a", "one.txt holds no training text"),
        ("bad.jsonl", '{"text": "ok"}\n{"text"', "bad.jsonl:2 is not valid JSON"),
        ("list.jsonl", "[1]", "list.jsonl:1 does not hold a JSON object"),
        ("keys.jsonl", '{"question": "x"}', 'keys.jsonl:1: a row needs "prompt".*question'),
        ("type.jsonl", '{"prompt": 3}', 'type.jsonl:1: "prompt" must be a string'),
        ("talk.jsonl", '{"messages": [{"role": "user"}]}', 'talk.jsonl:1: "messages" must be'),
        ("deep.jsonl", '{"a": ' * 100_000, "deep.jsonl:1 is nested too deeply"),
        ("number.jsonl", '{"prompt": ' + "9" * 6000 + "}", "number.jsonl:1 holds a number of 6,000 digits"),
        ("half.jsonl", '{"prompt": "\\ud800"}', "half.jsonl:1 holds half a surrogate"),
        ("half.jsonl", '{"text": "abc\\udfff"}', "half.jsonl:1 holds half a surrogate"),
        ("half.jsonl", '{"messages": [{"role": "user", "content": "\\uD83D"}]}', "half.jsonl:1 holds half a surrogate"),
        ("null.jsonl", '{"messages": [{"role": "user", "content": null}]}', 'null.jsonl:1: "messages" must be'),
        ("part.jsonl", '{"messages": [{"role": "user", "content": ["x"]}]}', "part.jsonl:1: content must be"),
        (
            "part.jsonl",
            '{"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}',
            "part.jsonl:1: content",
        ),
        (
            "part.jsonl",
            '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}',
            "part.jsonl:1: ",
        ),
        ("empty.jsonl", "\n\n", "empty.jsonl is empty"),
        ("only.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}', "only.jsonl:1: .*without a question"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path, chat_format, name, content, message):
    with pytest.raises(DataError, match=message):
        read_examples([write(tmp_path, name, content)], chat_format, 10)


def test_parts_of_text_are_that_text(tmp_path, chat_format):
    """As the server and every other client of chat templates take them."""
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    rows = [
        {"messages": [{"role": "user", "content": c}, {"role": "assistant", "content": a}]}
        for c, a in ((parts, parts), ("hi", "hi"))
    ]
    first, second = read_examples([write(tmp_path, "parts.jsonl", *rows)], chat_format, 9)
    assert (first.prompt_tokens, first.response_tokens) == (second.prompt_tokens, second.response_tokens)


def test_missing_and_binary_files(tmp_path, tokenizer, chat_format):
    with pytest.raises(MlxDdtreeError, match="does not exist"):
        read_examples([tmp_path / "nothing.txt"], chat_format, 10)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MlxDdtreeError, match="UTF-8"):
        read_examples([tmp_path / "b.txt"], chat_format, 10)
    (tmp_path / "c.jsonl").write_bytes(b'{"prompt": "a"}\n\xff\n')
    with pytest.raises(MlxDdtreeError, match=r"c\.jsonl:2 is not valid JSON"):
        read_examples([tmp_path / "c.jsonl"], chat_format, 10)
    with pytest.raises(MlxDdtreeError, match="cannot be read"):
        read_examples([tmp_path], chat_format, 10)
    with pytest.raises(MlxDdtreeError, match="no training data"):
        read_examples([], chat_format, 10)
