"""A run's file survives being killed at any byte, and never mixes two runs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.benchmarking.record import RunFile, group_of_line, group_of_question, read_run
from mlx_ddtree.errors import OptionError
from mlx_ddtree.machine import machine

HEADER = {
    "model": "tiny",
    "settings": ["mlx_lm", "ddtree 8"],
    "max_tokens": 16,
    "cool_down": 0.0,
    "machine": machine(),
}
FIGURES = {"tokens": 5, "seconds": 0.5, "rounds": 2, "identical": True, "repeated": 0.1, "lookup_tau": 1.2}
QUESTIONS = [Question("data", i, (f"question {i}",) * (1 + i % 2)) for i in range(4)]


def lines_of(question, temp=0.0, repeat=0):
    about = dict(
        zip(("data", "temp", "index", "digest", "repeat"), group_of_question(question, temp, repeat), strict=True)
    )
    turns = len(question.turns)
    return [
        about | {"turn": t, "turns": turns, "setting": s} | FIGURES for t in range(turns) for s in HEADER["settings"]
    ]


def write_all(path):
    with RunFile(path, HEADER) as run:
        for question in QUESTIONS:
            if group_of_question(question, 0.0, 0) not in run.done:
                run.append(lines_of(question))
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path):
    write_all(tmp_path / "run.jsonl")
    header, lines = read_run(tmp_path / "run.jsonl")
    assert header == HEADER
    assert lines == [line for question in QUESTIONS for line in lines_of(question)]
    assert [group_of_line(line) for line in lines_of(QUESTIONS[1])] == [group_of_question(QUESTIONS[1], 0.0, 0)] * 4


@settings(max_examples=60)
@given(data=st.data())
def test_a_run_goes_on_wherever_it_was_cut(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    whole = write_all(path)
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    cut = data.draw(st.integers(0, len(whole)) | st.sampled_from(ends))
    path.write_bytes(whole[:cut])
    write_all(path)
    header, lines = read_run(path)
    assert header == HEADER
    wanted = [line for question in QUESTIONS for line in lines_of(question)]
    assert sorted(lines, key=json.dumps) == sorted(wanted, key=json.dumps)


def test_what_only_lacks_its_newline_was_measured(tmp_path):
    """Killed between a line and its newline, a run goes on behind that line, and the file keeps what `done` says."""
    path = tmp_path / "run.jsonl"
    whole = write_all(path)
    path.write_bytes(whole[:-1])
    with RunFile(path, HEADER) as run:
        assert len(run.done) == len(QUESTIONS)
        run.append(lines_of(QUESTIONS[0], temp=1.0))
        done = set(run.done)
    assert {group_of_line(line) for line in read_run(path)[1]} == done
    assert path.read_bytes().startswith(whole)


def test_one_process_measures_into_a_run(tmp_path):
    path = tmp_path / "run.jsonl"
    with RunFile(path, HEADER) as run:
        with pytest.raises(OptionError, match=r"run\.jsonl is being written by another process"):
            RunFile(path, HEADER)
        run.append(lines_of(QUESTIONS[0]))
        assert len(read_run(path)[1]) == 2  # a report may look at it meanwhile
    with RunFile(path, HEADER) as run:
        assert len(run.done) == 1


def test_an_unfinished_group_counts_for_nothing(tmp_path):
    write_all(tmp_path / "run.jsonl")
    texts = (tmp_path / "run.jsonl").read_text().splitlines()
    (tmp_path / "run.jsonl").write_text("\n".join(texts[:-1]) + "\n")
    with RunFile(tmp_path / "run.jsonl", HEADER) as run:
        assert run.done == {group_of_question(question, 0.0, 0) for question in QUESTIONS[:-1]}


@pytest.mark.parametrize(
    "change", [{"max_tokens": 17}, {"settings": ["mlx_lm"]}, {"machine": {**machine(), "chip": "another"}}]
)
def test_another_run_is_refused(tmp_path, change):
    path = tmp_path / "run.jsonl"
    before = write_all(path)
    with pytest.raises(OptionError, match=f"another {next(iter(change))}.*--output"):
        RunFile(path, HEADER | change)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"no json\n",
        b"notes without an end",
        b'{"prompt": "a data set"}\n',
        b"[1]\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"settings": 3}\n',
        json.dumps(HEADER | {"machine": "an old one"}).encode() + b"\n",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=r"run\.jsonl"):
        RunFile(path, HEADER)
    assert path.read_bytes() == content
    with pytest.raises(OptionError, match=r"run\.jsonl"):
        read_run(path)


@pytest.mark.parametrize(
    "line",
    [
        b'{"data": ',
        b"\xc3\x28",
        b"[" * 100_000,
        b'{"tokens": ' + b"9" * 6000 + b"}",
        b"{}",
        *(json.dumps(lines_of(QUESTIONS[0])[0] | change).encode() for change in (
            {"index": [1]}, {"temp": "0"}, {"seconds": -1}, {"seconds": None}, {"tokens": 0}, {"setting": 3},
            {"accepted": {"x": 1}}, {"accepted": [1]}, {"stages": {"draft": "x"}}, {"identical": 1},
        )),
    ],
)  # fmt: skip
def test_damage_inside_is_named(tmp_path, line):
    """With its line, by the program that goes on and by the one that reports; the file stays as it is."""
    path = tmp_path / "run.jsonl"
    texts = write_all(path).splitlines()
    texts[3] = line
    damaged = b"\n".join(texts) + b"\n"
    path.write_bytes(damaged)
    for read in (read_run, lambda path: RunFile(path, HEADER)):
        with pytest.raises(OptionError, match=r"run\.jsonl:4\b"):
            read(path)
    assert path.read_bytes() == damaged


def test_runs_that_are_passed_on_tell_nobodys_folders():
    assert not [fact for fact in machine().values() if str(fact).startswith("/")]
