"""Runs of the embedded pair: measured, interrupted, continued, refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mlx_ddtree import load
from mlx_ddtree.benchmarking.bench import Bench, Task
from mlx_ddtree.benchmarking.prompts import Question
from mlx_ddtree.benchmarking.record import group_of_line, read_run
from mlx_ddtree.benchmarking.repetition import lookup_acceptance, repeated_share
from mlx_ddtree.benchmarking.settings import METHODS, make_settings
from mlx_ddtree.errors import OptionError
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs.benchmark import main, make_arguments
from mlx_ddtree.programs.measuring import fill_in

BRIEF = ["--methods", "ar", "ddtree", "--budgets", "4", "auto", "--max-tokens", "12"]
NAMES = ["mlx_lm", "ar", "ddtree 4", "ddtree auto"]


@pytest.fixture(scope="module")
def pair():
    return load()


@pytest.fixture
def rows(tmp_path):
    """A conversation, a text to continue and a question."""
    path = tmp_path / "mine.jsonl"
    texts = [
        {"turns": ["Write a function that adds two numbers.", "Now subtract them."]},
        {"text": "def multiply(a, b):", "kind": "code", "temp": 0.5},
        {"prompt": "Write a function that reverses a string."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in texts))
    return path


def run(capsys, *arguments):
    code = main(["run", *BRIEF, *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_measures_continues_and_is_complete(rows, tmp_path, capsys):
    output = tmp_path / "run.jsonl"
    code, out, _ = run(capsys, "--data", rows, "--temps", "0", "1", "--output", output, "--count", "2")
    assert code == 0 and "mine, temperature 0" in out
    first = output.read_text().splitlines()

    run(capsys, "--data", rows, "--temps", "0", "1", "--output", output)  # a larger count adds
    header, lines = read_run(output)
    assert output.read_text().splitlines()[: len(first)] == first
    assert header["settings"] == NAMES
    groups = {(line["data"], line["index"], line["temp"], line["turn"]) for line in lines}
    assert groups == {
        *(("mine", 0, temp, turn) for temp in (0.0, 1.0) for turn in (0, 1)),
        ("mine/code", 1, 0.5, 0),
        *(("mine", 2, temp, 0) for temp in (0.0, 1.0)),
    }
    assert len(lines) == len(groups) * len(NAMES)
    assert all(line["identical"] is not False for line in lines)
    for line in lines:
        assert line["tokens"] <= 12 and line["seconds"] > 0
        assert line["host"]["main"] > 0 and line["host"].get("exposed", 0) >= 0
        assert sum(line.get("accepted", {"0": line["rounds"]}).values()) == line["rounds"]

    whole = output.read_bytes()
    cut = whole[: whole.rindex(b'"setting": "ddtree 4"')]  # killed while it wrote the last group
    output.write_bytes(cut)
    missing = {group_of_line(line) for line in lines} - {group_of_line(line) for line in read_run(output)[1]}
    assert len(missing) == 1
    code, _, err = run(capsys, "--data", rows, "--temps", "0", "1", "--output", output)
    assert (code, {group_of_line(line) for line in read_run(output)[1]}) == (0, {group_of_line(line) for line in lines})
    assert "1/1" in err

    before = output.read_bytes()
    code, out, err = run(capsys, "--data", rows, "--temps", "0", "1", "--output", output, "--json")
    assert "is complete" in err and output.read_bytes() == before
    (summary,) = json.loads(out)
    assert [cell["setting"] for cell in summary["cells"][:4]] == NAMES
    assert run(capsys, "--data", rows, "--output", output, "--cool-down", "0.5")[0] == 2


def test_the_order_changes_from_prompt_to_prompt(pair):
    """Whatever the machine does meanwhile meets every setting alike."""
    orders = []

    class Noted(Bench):
        def _answer_by_stock(self, *arguments):
            orders[-1].append("mlx_lm")
            return super()._answer_by_stock(*arguments)

        def _answer_by_setting(self, ids, room, temp, name):
            orders[-1].append(self.settings[name]["method"])
            return super()._answer_by_setting(ids, room, temp, name)

    bench = Noted(pair, make_settings(pair, ["ar", "dflash", "ddtree"], [4], [4]), 4)
    for number in range(4):
        orders.append([])
        bench.answer(Task(Question("data", 0, ("Hello",)), 0.0, 0), number)
    assert {tuple(sorted(order)) for order in orders} == {("ar", "ddtree", "dflash", "mlx_lm")}
    assert {order[0] for order in orders} == {"ar", "ddtree", "dflash", "mlx_lm"}


def test_what_does_not_fit_is_left_out(pair):
    bench = Bench(pair, make_settings(pair, ["ar"], None, []), 4)
    assert bench.answer(Task(Question("data", 0, ("word " * 9000,)), 0.0, 0), 0) == []


def test_settings(pair):
    assert list(make_settings(pair, ["dflash", "ddtree"], None, [16, "auto"])) == [
        "mlx_lm",
        "dflash 16",
        "dflash auto",
        "ddtree 16",
        "ddtree auto",
    ]
    assert list(make_settings(pair, ["dflash"], [4, 99], [])) == ["mlx_lm", "dflash 4"]
    with pytest.raises(OptionError, match="2000 is out of range"):
        make_settings(pair, ["ddtree"], None, [2000])
    with pytest.raises(OptionError, match="unknown method 'eagle'"):
        make_settings(pair, ["eagle"], None, [])
    alone = Pair(pair.target, None, pair.tokenizer)
    assert list(make_settings(alone, METHODS, None, [8])) == ["mlx_lm", "ar", "lookup auto"]


def test_the_lookup_column_is_the_target_alone(pair):
    """Whatever drafter the pair has."""
    bench = Bench(pair, make_settings(pair, ["lookup"], None, []), 8)
    rows = bench.answer(Task(Question("data", 0, ("Hello",)), 0.0, 0), 0)
    assert {row["setting"] for row in rows} == {"mlx_lm", "lookup auto"}
    assert bench._without_drafter.drafter is None and pair.drafter is not None


def test_interruption_keeps_what_is_done(tmp_path):
    output = tmp_path / "run.jsonl"
    brief = ["--methods", "ar", "--max-tokens", "24", "--count", "90", "--output", str(output)]
    command = [sys.executable, "-m", "mlx_ddtree.benchmark", *brief]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    end = time.monotonic() + 120
    try:
        while not output.exists() or output.read_bytes().count(b"\n") < 5:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"the same command goes on" in err and b"Traceback" not in err
    lines = read_run(output)[1]
    assert len(lines) >= 4 and len(lines) % 2 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "gsm9k"], "unknown data set"),
        (["--temps", "-1"], "negative"),
        (["--methods", "eagle"], "unknown method"),
        (["--draft-model", "./not/there"], "no such folder"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--output", str(tmp_path / "run.jsonl")]) == 2  # without a command it is `run`
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and "Traceback" not in err
    assert not (tmp_path / "run.jsonl").exists()


def test_the_published_protocol():
    args = make_arguments().parse_args(["run", "--published", "--max-tokens", "512"])
    fill_in(args)
    assert 3 * len(args.data) * len(args.temps) == 60
    assert args.budgets == [16, 32, 64, 128, 256, 512, 1024, "auto"] and args.blocks is None
    assert (args.temps, args.max_tokens) == ([0.0, 1.0], 512)  # what is given wins


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["report", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 0 and "usage" in capsys.readouterr().out


def test_repetition_of_known_texts():
    assert lookup_acceptance([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], 15) > 2
    assert lookup_acceptance([1, 2], [3, 4, 5, 6], 15) == 1.0
    assert lookup_acceptance([1, 2], [3], 15) == 0.0
    assert repeated_share([1, 2, 3, 4], [1, 2, 3, 4], 4) == 1.0
    assert repeated_share([1, 2, 3, 4], [1, 2, 9, 9, 9], 2) == 0.5
    assert repeated_share([1, 2], [3], 4) == 0.0
