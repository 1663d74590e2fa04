"""The target's own answers: in batches, kept whatever interrupts them."""

import pytest
from mlx_lm import generate as mlx_lm_generate

from mlx_ddtree.errors import MlxDdtreeError, OptionError
from mlx_ddtree.files.journal import Journal
from mlx_ddtree.training.answers import Answering, answer_batch, answer_prompts, read_answers
from mlx_ddtree.training.chat_format import ChatFormat
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.reading import read_examples

from ..families import FAMILIES, tiny_model, tiny_target
from .test_reading import write
from .tiny import EOS, make_target, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def chat_format(tokenizer):
    return ChatFormat(tokenizer)


def test_the_target_answers_and_an_interrupted_run_goes_on(tmp_path, tokenizer, chat_format):
    model, how = make_target().model, Answering(max_tokens=6, batch_size=4, sampled_share=0.25)
    rows = [{"prompt": f"{c}{c}b"} for c in "cdefghij"]
    examples = read_examples([write(tmp_path, "p.jsonl", *rows, {"text": "some text"})], chat_format, 10)
    file = tmp_path / "out" / "responses.jsonl"
    answered = answer_prompts(model, tokenizer, examples, file, how, progress=False)
    lines = file.read_text().splitlines()
    assert len(lines) == 8
    assert len(answered) == 9
    assert sum(e.greedy for e in answered) == 6  # two of eight are sampled

    greedy = next(e for e in answered if e.greedy)
    text = mlx_lm_generate(model, tokenizer, list(greedy.prompt_tokens), max_tokens=6)
    assert tokenizer.decode([t for t in greedy.response_tokens if t != EOS]) == text

    file.write_text("\n".join(lines[:3]) + '\n{"prompt_tok')  # a crash in the middle of a line
    again = answer_prompts(model, tokenizer, examples, file, how, progress=False)
    assert file.read_text().splitlines()[:3] == lines[:3]
    assert sorted(e.prompt_tokens for e in again) == sorted(e.prompt_tokens for e in answered)
    kept = {e.prompt_tokens: e.response_tokens for e in again if e.greedy}
    assert kept == {e.prompt_tokens: e.response_tokens for e in answered if e.greedy}


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt_tokens": [1]}',
        '{"prompt_tokens": [1], "response_tokens": "2"}',
        '{"prompt_tokens": [true], "response_tokens": [2]}',
        '{"prompt_tokens": [-5], "response_tokens": [2]}',
        '{"prompt_tokens": [1], "response_tokens": [99999999999999]}',
        "[" * 100_000,
        "{",
    ],
)
def test_malformed_answers_are_named(tmp_path, tokenizer, line):
    good = '{"prompt_tokens": [1], "response_tokens": [2]}\n'
    file = tmp_path / "r.jsonl"
    file.write_text(good + line + "\n" + good)
    with pytest.raises(MlxDdtreeError, match=r"r\.jsonl:2\b"):
        read_answers(file)
    with pytest.raises(MlxDdtreeError, match=r"r\.jsonl:2\b"):
        answer_prompts(None, tokenizer, [], file, Answering(), progress=False)
    assert file.read_text() == good + line + "\n" + good


def test_an_answer_that_only_lacks_its_newline_counts(tmp_path, tokenizer):
    """Killed there, or in the middle of a character, a run loses nothing that was whole."""
    file = tmp_path / "r.jsonl"
    rows = [b'{"prompt_tokens": [4, 5], "response_tokens": [6, 7], "temperature": 0.0}'] * 2
    for end in (b"", b'\n{"prompt_tok\xc3'):
        file.write_bytes(b"\n".join(rows) + end)
        assert len(read_answers(file)) == 2
        model, how = make_target().model, Answering(max_tokens=4, batch_size=4)
        answered = answer_prompts(model, tokenizer, [Example((4, 5), None)] * 3, file, how, progress=False)
        assert len(answered) == 3
        assert file.read_bytes().startswith(b"\n".join(rows) + b"\n{")
        assert [e.token_ids for e in read_answers(file)] == [e.token_ids for e in answered]


def test_one_process_answers_into_a_file(tmp_path, tokenizer):
    with Journal(tmp_path / "r.jsonl", MlxDdtreeError), pytest.raises(MlxDdtreeError, match="another process"):
        answer_prompts(None, tokenizer, [Example((4, 5), None)], tmp_path / "r.jsonl", Answering(), progress=False)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 1}, {"max_tokens": 3072}, {"sampled_share": -0.1}, {"sampled_share": 1.5},
        {"sampled_share": float("nan")}, {"temperature": -1.0}, {"temperature": float("inf")},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(options):
    """Refused at once: sampled answers come after all greedy ones, hours later."""
    with pytest.raises(OptionError, match=r"--(max-tokens|sampled-share|temp)"):
        Answering(**options)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_in_batches(name, tokenizer):
    """A target with its adapter answers as mlx-lm's model does, prompts of several lengths at once."""
    prompts = [(5, 9, 23), (7, 11), (8, 3, 30, 31, 32, 4)]
    how = Answering(max_tokens=6, batch_size=4)
    target = tiny_target(name)
    found = dict(answer_batch(target.model, tokenizer, prompts, 0.0, how))
    expected = dict(answer_batch(tiny_model(FAMILIES[name]), tokenizer, prompts, 0.0, how))
    assert found == expected
    assert set(found) == set(prompts)
