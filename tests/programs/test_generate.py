"""The command line: what it prints, what it refuses, how it ends."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import mlx_ddtree
from mlx_ddtree.programs.generate import main

PROMPT = "Write a function that reverses a string."


def run(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_streams_the_answer(capsys):
    code, out, _ = run(capsys, "--prompt", PROMPT, "--max-tokens", "60")
    assert code == 0
    assert "def " in out


def test_json_is_one_object(capsys):
    code, out, _ = run(capsys, "--prompt", PROMPT, "-m", "40", "--json", "--tree-budget", "6")
    result = json.loads(out)
    assert code == 0
    assert len(result["tokens"]) == result["generation_tokens"] <= 40
    assert {"text", "prompt_tokens", "generation_tps", "rounds", "peak_memory_gb"} <= result.keys()
    assert (result["method"], result["tree_budget"]) == ("ddtree", 6)
    assert result["acceptance_length"] == pytest.approx((result["generation_tokens"] - 1) / result["rounds"])
    assert set(result["seconds"]) == {"prefill", "draft", "tree", "verify", "commit"}


def test_json_says_what_auto_chose(capsys):
    code, out, _ = run(capsys, "--prompt", PROMPT, "-m", "60", "--json")
    result = json.loads(out)
    assert (code, result["tree_budget"]) == (0, "auto")
    statistics = result["statistics"]
    assert sum(statistics["nodes"].values()) == result["rounds"]
    assert statistics["kinds"].keys() <= {"draft", "lookup", "plain", "tie"}
    verified = any(int(nodes) for nodes in statistics["nodes"])  # a busy machine may decode plainly
    assert (statistics["predicted_accepted"] > 0) == verified


def test_compare_shows_identical_tokens(capsys):
    code, out, _ = run(capsys, "--prompt", PROMPT, "-m", "40", "--compare")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["ar", "dflash", "ddtree"]
    assert all(line.endswith("yes") for line in out.splitlines()[-3:])


def test_compare_above_temperature_zero(capsys):
    """One seed draws the same tokens by every method, even when the user gave none."""
    _, out, _ = run(capsys, "--prompt", PROMPT, "-m", "40", "--compare", "--temp", "0.8", "--json")
    assert all(result["identical"] for result in json.loads(out).values())


def test_a_seed_repeats_a_run(capsys):
    outputs = {run(capsys, "-p", PROMPT, "-m", "30", "--temp", "1", "--seed", "5")[1] for _ in range(2)}
    assert len(outputs) == 1
    assert outputs != {run(capsys, "-p", PROMPT, "-m", "30", "--temp", "1", "--seed", "6")[1]}


def test_prompt_from_stdin_and_system_prompt(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT))
    direct = run(capsys, "--prompt", PROMPT, "-m", "30")[1]
    assert run(capsys, "--prompt", "-", "-m", "30")[1] == direct
    assert run(capsys, "--prompt", PROMPT, "-m", "30", "--ignore-chat-template")[1] != direct


def test_verbose_says_how_the_pair_was_read(capsys):
    _, _, err = run(capsys, "--prompt", PROMPT, "-m", "8", "--verbose")
    assert "taps" in err and "blas" in err and "acceptance length" in err
    assert "Rounds by kind" in err and "Rounds by nodes" in err and "predicted" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", " "], "prompt is empty"),
        (["--model", "nobody/unknown"], "nobody/unknown"),
        (["--model", "./not/there"], "no such folder"),
        (["--model", "./not/there", "--method", "ar"], "no such folder"),
        (["--draft-model", "./not/there"], "no such folder"),
        (["--tree-budget", "5000"], "out of range"),
        (["--block-size", "99"], "out of range"),
        (["--temp", "-1"], "temp -1.0 is out of range"),
        (["--max-tokens", "0"], "max_tokens"),
        (["--prompt", "word " * 9000], "context ends at"),
    ],
)
def test_user_errors_are_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and message in err and "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--tree-budget", "many"], ["--parity", "maybe"]])
def test_options_that_cannot_be_read_name_themselves(capsys, arguments):
    with pytest.raises(SystemExit):
        main(arguments)
    assert arguments[0] in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


def test_the_function_survives_the_import_of_the_program():
    """`mlx_ddtree.generate` is both a function and the program of that name."""
    pair = mlx_ddtree.load()
    assert isinstance(mlx_ddtree.generate(pair, [{"role": "user", "content": PROMPT}], 8), str)


def test_ctrl_c_ends_with_130():
    command = [sys.executable, "-u", "-m", "mlx_ddtree.generate", "--ignore-chat-template", "-m", "-1", "-p", "def "]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None and process.stdout.read(1)  # it has begun to answer
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode != 0:  # the answer may have ended by itself
        assert process.returncode == 130
        assert b"interrupted" in err and b"Traceback" not in err


def test_several_answers(capsys):
    how = ("--prompt", PROMPT, "-m", "24", "--temp", "0.9", "--tree-budget", "4")
    code, out, _ = run(capsys, *how, "--seed", "5", "--n", "3", "--json")
    result = json.loads(out)
    assert code == 0 and [choice["seed"] for choice in result["choices"]] == [5, 6, 7]
    assert result["kv_rows"] < result["kv_rows_alone"]
    alone = json.loads(run(capsys, *how, "--seed", "6", "--json")[1])
    assert {key: result["choices"][1][key] for key in ("text", "tokens", "finish_reason")}.items() <= alone.items()
    _, out, _ = run(capsys, *how, "--seed", "5", "--n", "3")
    assert all(choice["text"] in out for choice in result["choices"]) and "3 of 3" in out


@pytest.mark.parametrize("extra", [(), *(("--temp", "1", x) for x in ("--compare", "--show-tree", "--kv-budget=99"))])
def test_several_answers_need_a_temperature_and_a_plain_output(capsys, extra):
    code, _, err = run(capsys, "--prompt", PROMPT, "-m", "8", "--n", "2", *extra)
    assert code == 2 and err.startswith("error: ")
