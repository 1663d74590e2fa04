"""Reading training files, the target's answers, and batches."""

import json
from itertools import chain

import numpy as np
import pytest
from mlx_lm import generate as mlx_lm_generate

from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.training.data import (
    Answering,
    DataError,
    Example,
    batch_order,
    make_batch,
    read_examples,
    read_responses,
    regenerate,
    split_held_out,
    usable,
)

from .tiny import EOS, make_target, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def write(folder, name, *lines):
    file = folder / name
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return file


def test_text_files_are_cut_in_windows_without_a_prompt(tmp_path, tokenizer):
    examples = read_examples([write(tmp_path, "a.txt", "abcdefghij"), write(tmp_path, "b.py", "x: y")], tokenizer, 4)
    assert [tokenizer.decode(list(e.response_tokens)) for e in examples] == ["abcd", "efgh", "ij", "x: y"]
    assert all(e.prompt_tokens == () and e.start == 0 for e in examples)


def test_rows_of_every_kind(tmp_path, tokenizer):
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
    asked, answered, talk, told, text = read_examples([file], tokenizer, 100)
    assert tokenizer.decode(list(asked.prompt_tokens)) == "u: hi\na: "
    assert asked.response_tokens is None
    assert answered.prompt_tokens == asked.prompt_tokens
    assert tokenizer.decode(list(answered.response_tokens[:-1])) == "yes"
    assert answered.response_tokens[-1] == EOS
    assert talk.response_tokens is None
    assert tokenizer.decode(list(told.response_tokens[:-1])) == "no"
    assert told.start == len(told.prompt_tokens) - 1
    assert text.prompt_tokens == ()
    assert answered.source == f"{file}:3"


def test_without_a_chat_template_the_prompt_is_its_text(tmp_path):
    tokenizer = make_tokenizer(chat=False)
    (example,) = read_examples([write(tmp_path, "p.jsonl", {"prompt": "hi"})], tokenizer, 9)
    assert tokenizer.decode(list(example.prompt_tokens)) == "hi"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", "  \n", "empty.txt is empty"),
        ("one.txt", "a", "one.txt holds no training text"),
        ("bad.jsonl", '{"text": "ok"}\n{"text"', "bad.jsonl:2: not valid JSON"),
        ("list.jsonl", "[1]", "list.jsonl:1: not a JSON object"),
        ("keys.jsonl", '{"question": "x"}', 'keys.jsonl:1: a row needs "prompt".*question'),
        ("type.jsonl", '{"prompt": 3}', 'type.jsonl:1: "prompt" must be a string'),
        ("talk.jsonl", '{"messages": [{"role": "user"}]}', 'talk.jsonl:1: "messages" must be'),
        ("only.jsonl", '{"messages": [{"role": "assistant", "content": "x"}]}', "only.jsonl:1: .*without a question"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path, tokenizer, name, content, message):
    with pytest.raises(DataError, match=message):
        read_examples([write(tmp_path, name, content)], tokenizer, 10)


def test_missing_and_binary_files(tmp_path, tokenizer):
    with pytest.raises(MlxDdtreeError, match="does not exist"):
        read_examples([tmp_path / "nothing.txt"], tokenizer, 10)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MlxDdtreeError, match="UTF-8"):
        read_examples([tmp_path / "b.txt"], tokenizer, 10)
    with pytest.raises(MlxDdtreeError, match="no training data"):
        read_examples([], tokenizer, 10)


def test_a_prompt_without_a_response_cannot_be_learnt(tmp_path, tokenizer):
    file = write(tmp_path, "p.jsonl", {"prompt": "hi"})
    with pytest.raises(DataError, match=r"p.jsonl:1: .*--no-regenerate"):
        usable(read_examples([file], tokenizer, 10))
    with pytest.raises(DataError, match="no training sequence"):
        usable([Example((1, 2), (3,))])


def test_the_target_answers_and_an_interrupted_run_goes_on(tmp_path, tokenizer):
    model, how = make_target().model, Answering(max_tokens=6, batch_size=4, sampled_share=0.25)
    rows = [{"prompt": f"{c}{c}b"} for c in "cdefghij"]
    examples = read_examples([write(tmp_path, "p.jsonl", *rows, {"text": "some text"})], tokenizer, 10)
    file = tmp_path / "out" / "responses.jsonl"
    answered = regenerate(model, tokenizer, examples, file, how, progress=False)
    lines = file.read_text().splitlines()
    assert len(lines) == 8
    assert len(answered) == 9
    assert sum(e.greedy for e in answered) == 6  # two of eight are sampled

    greedy = next(e for e in answered if e.greedy)
    text = mlx_lm_generate(model, tokenizer, list(greedy.prompt_tokens), max_tokens=6)
    assert tokenizer.decode([t for t in greedy.response_tokens if t != EOS]) == text

    file.write_text("\n".join(lines[:3]) + '\n{"prompt_tok')  # a crash in the middle of a line
    again = regenerate(model, tokenizer, examples, file, how, progress=False)
    assert file.read_text().splitlines()[:3] == lines[:3]
    assert sorted(e.prompt_tokens for e in again) == sorted(e.prompt_tokens for e in answered)
    kept = {e.prompt_tokens: e.response_tokens for e in again if e.greedy}
    assert kept == {e.prompt_tokens: e.response_tokens for e in answered if e.greedy}


def test_malformed_responses(tmp_path):
    file = write(tmp_path, "r.jsonl", {"prompt_tokens": [1], "response_tokens": [2]}, {"prompt_tokens": [1]}, "")
    with pytest.raises(DataError, match=r"r\.jsonl:2"):
        read_responses(file)


def test_batches_are_padded_and_every_epoch_shows_every_sequence():
    batch = make_batch([Example((5, 6), (7, 8, 9)), Example((), (4, 5))])
    assert batch.token_ids.tolist() == [[5, 6, 7, 8, 9], [4, 5, 0, 0, 0]]
    assert (batch.lengths.tolist(), batch.starts.tolist()) == ([5, 2], [1, 0])

    lengths = np.random.default_rng(0).integers(5, 50, 12).tolist()
    order = batch_order(lengths, 4, seed=0)
    first, second = ([order(s) for s in range(e, e + 3)] for e in (0, 3))
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(12))
    assert first != second
    assert batch_order(lengths, 4, seed=0)(4) == second[1]  # whatever was asked before


def test_held_out_sequences_are_not_trained_on():
    examples = [Example((), (i, i)) for i in range(40)]
    training, held_out = split_held_out(examples, 0.1, 64, seed=0)
    assert len(held_out) == 4
    assert not set(training) & set(held_out)
    with pytest.raises(DataError, match="at least two"):
        split_held_out(examples[:1], 0.1, 64, seed=0)
