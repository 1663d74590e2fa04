"""Prompts: every documented form of a row is read, and a run's rows do not depend on how many are asked for."""

import json
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.benchmarking.prompts import EVERYDAY, HELD_OUT, PUBLISHED, load_questions, user_turns
from mlx_ddtree.errors import OptionError, PromptError

ROWS = {
    "gsm8k": {"question": "How many apples?", "answer": "3"},
    "math500": {"problem": "Find x.", "solution": "...", "level": 3},
    "aime24": {"id": 60, "problem": "Find the sum.", "answer": "204"},
    "aime25": {"problem_idx": 1, "problem": "Find the bases.", "answer": 70},
    "humaneval": {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f", "test": "..."},
    "mbpp": {"task_id": 2, "prompt": "Write a function to find shared elements.", "test_list": ["assert 1"]},
    "livecodebench": {"question_content": "Read n.", "starter_code": "", "platform": "codeforces"},
    "swe-bench": {"instance_id": "a__b-1", "problem_statement": "It crashes.", "patch": "..."},
    "mt-bench": {"prompt": ["Write a blog post.", "Rewrite it."], "category": "writing", "prompt_id": 1},
    "alpaca": {"instruction": "Add the numbers.", "input": "1 and 2", "output": "3"},
}


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return str(path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_public_rows_are_read_with_their_own_fields(tmp_path, name):
    write(tmp_path / f"{name}.jsonl", [ROWS[name]])
    (question,) = load_questions(name, tmp_path, None)
    text = "\n".join(question.turns)
    for field in PUBLISHED[name].fields:
        value = ROWS[name][field]
        if field not in ("entry_point", "test_list", "category"):
            assert all(part in text for part in ([value] if isinstance(value, str) else value))
    assert len(question.turns) == (2 if name == "mt-bench" else 1)
    assert (question.data, question.raw, question.temp) == (name, False, None)


def test_mathematics_asks_for_steps_and_code_for_tests():
    assert user_turns("gsm8k", ROWS["gsm8k"])[0].endswith("within \\boxed{}.")
    assert "```python\ndef f(x):" in user_turns("humaneval", ROWS["humaneval"])[0]
    assert (
        "starter code:\n```python\nclass A:"
        in user_turns("livecodebench", {**ROWS["livecodebench"], "starter_code": "class A:"})[0]
    )
    assert user_turns("alpaca", ROWS["alpaca"]) == ["Add the numbers.\n\n1 and 2"]
    assert user_turns("alpaca", {**ROWS["alpaca"], "input": ""}) == ["Add the numbers."]


def test_own_rows(tmp_path):
    rows = [{"prompt": "a"}, {"turns": ["b", "c"]}, {"text": "d", "kind": "code", "temp": 1.2}]
    questions = load_questions(write(tmp_path / "mine.jsonl", rows), tmp_path, None)
    assert [q.turns for q in questions] == [("a",), ("b", "c"), ("d",)]
    assert [(q.data, q.raw, q.temp) for q in questions] == [("mine", False, None)] * 2 + [("mine/code", True, 1.2)]
    assert len({q.digest for q in questions}) == 3


def test_the_bundled_prompts_need_no_folder(tmp_path):
    assert len(load_questions(HELD_OUT, tmp_path / "none", None)) == 100
    everyday = load_questions(EVERYDAY, tmp_path / "none", None)
    assert len(everyday) == 200
    assert {q.data.partition("/")[2] for q in everyday} == {"questions", "stories", "writing", "numbers", "code"}


@given(st.integers(1, 60), st.integers(1, 60))
def test_a_larger_count_only_adds(few, many):
    few, many = sorted((few, many))
    indices = [{q.index for q in load_questions(HELD_OUT, None, n)} for n in (few, many)]
    assert len(indices[0]) == few and indices[0] <= indices[1]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '"text"',
        "{}",
        '{"prompt": ""}',
        '{"prompt": 3}',
        '{"turns": []}',
        '{"turns": ["a", 1]}',
        '{"question": "gsm8k?"}',
        '{"turns": "one text"}',
        '{"prompt": "a", "temp": "warm"}',
        '{"prompt": "a", "temp": NaN}',
        '{"prompt": "a", "temp": 1e999}',
        '{"prompt": "a", "temp": -1}',
        '{"prompt": "a", "temp": true}',
        '{"prompt": "a", "kind": [1]}',
        '{"prompt": "\\ud800"}',
        "[" * 100_000,
        b"\xff",
    ],
)
def test_a_row_without_a_prompt_is_named(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n' + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(PromptError, match=r"mine\.jsonl:2\b"):
        load_questions(str(path), tmp_path, None)


def test_a_text_may_hold_any_line_separator(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85c"}\n{"prompt": "d"}\n', encoding="utf-8")
    assert [q.turns for q in load_questions(str(path), tmp_path, None)] == [("a\u2028b\x85c",), ("d",)]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "gsm8k.jsonl").write_text("")
    with pytest.raises(PromptError, match="has no prompts"):
        load_questions("gsm8k", tmp_path, None)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="no such file"):
        load_questions("not/there.jsonl", tmp_path, None)
    with pytest.raises(OptionError, match=r"unknown data set 'gsm9k'.*gsm8k"):
        load_questions("gsm9k", tmp_path, None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(OptionError, match=r"gsm8k.jsonl is missing.*pip install datasets"):
        load_questions("gsm8k", tmp_path, None)


def test_fetched_data_is_written_for_the_next_time(tmp_path, monkeypatch):
    asked = []

    def load_dataset(**source):
        asked.append(source)
        return [ROWS["mt-bench"]]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    first = load_questions("mt-bench", tmp_path / "data", None)
    assert first == load_questions("mt-bench", tmp_path / "data", None)
    assert asked == [{"path": "HuggingFaceH4/mt_bench_prompts", "split": "train"}]
    assert first[0].turns == tuple(ROWS["mt-bench"]["prompt"])


def test_a_failed_fetch_leaves_nothing(tmp_path, monkeypatch):
    def load_dataset(**source):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(OptionError, match="no network"):
        load_questions("gsm8k", tmp_path, None)
    assert not list(tmp_path.iterdir())
