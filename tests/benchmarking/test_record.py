"""A run's file survives being killed at any byte, and never mixes two runs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.benchmarking.record import RunFile, group_key, key_of, read_run
from mlx_ddtree.errors import OptionError

HEADER = {"model": "tiny", "settings": ["mlx_lm", "ddtree 8"], "max_tokens": 16}
QUESTIONS = [Question("data", i, (f"question {i}",) * (1 + i % 2)) for i in range(4)]


def lines_of(question, temp=0.0, repeat=0):
    about = dict(zip(("data", "temp", "index", "digest", "repeat"), group_key(question, temp, repeat), strict=True))
    turns = len(question.turns)
    return [
        about | {"turn": t, "turns": turns, "setting": s, "tokens": 5} for t in range(turns) for s in HEADER["settings"]
    ]


def write_all(path):
    run = RunFile(path, HEADER)
    for question in QUESTIONS:
        if group_key(question, 0.0, 0) not in run.done:
            run.append(lines_of(question))
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path):
    write_all(tmp_path / "run.jsonl")
    header, lines = read_run(tmp_path / "run.jsonl")
    assert header == HEADER
    assert lines == [line for question in QUESTIONS for line in lines_of(question)]
    assert [key_of(line) for line in lines_of(QUESTIONS[1])] == [group_key(QUESTIONS[1], 0.0, 0)] * 4


@settings(max_examples=60)
@given(data=st.data())
def test_a_run_goes_on_wherever_it_was_cut(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    whole = write_all(path)
    cut = data.draw(st.integers(whole.index(b"\n") + 1, len(whole)))
    path.write_bytes(whole[:cut])
    write_all(path)
    lines = read_run(path)[1]
    wanted = [line for question in QUESTIONS for line in lines_of(question)]
    assert sorted(lines, key=json.dumps) == sorted(wanted, key=json.dumps)


def test_an_unfinished_group_counts_for_nothing(tmp_path):
    write_all(tmp_path / "run.jsonl")
    texts = (tmp_path / "run.jsonl").read_text().splitlines()
    (tmp_path / "run.jsonl").write_text("\n".join(texts[:-1]) + "\n")
    run = RunFile(tmp_path / "run.jsonl", HEADER)
    assert run.done == {group_key(question, 0.0, 0) for question in QUESTIONS[:-1]}


@pytest.mark.parametrize("change", [{"max_tokens": 17}, {"settings": ["mlx_lm"]}, {"machine": "another"}])
def test_another_run_is_refused(tmp_path, change):
    path = tmp_path / "run.jsonl"
    before = write_all(path)
    with pytest.raises(OptionError, match=f"another {next(iter(change))}.*--output"):
        RunFile(path, HEADER | change)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["no json\n", '{"prompt": "a data set"}\n', "[1]\n"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "run.jsonl"
    path.write_text(content)
    with pytest.raises(OptionError):
        RunFile(path, HEADER)
    assert path.read_text() == content


def test_damage_inside_is_named(tmp_path):
    path = tmp_path / "run.jsonl"
    write_all(path)
    texts = path.read_text().splitlines()
    texts[3] = texts[3][:10]
    path.write_text("\n".join(texts) + "\n")
    with pytest.raises(OptionError, match="line 4"):
        read_run(path)
