"""A target without a known drafter is no error anywhere: one line says what is used, and what would help."""

import json

import pytest

from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.programs import benchmark, generate

TARGET = str(DEMO / "target")
PROMPT = ["--prompt", "Count to three.", "--max-tokens", "8"]
LINE = "no drafter for"


@pytest.mark.parametrize(
    "method", [[], ["--method", "ddtree"], ["--method", "dflash"], ["--tree-budget", "8"], ["--n", "2", "--temp", "1"]]
)
def test_generate_answers_and_says_what_is_used(capsys, caplog, method):
    assert generate.main(["--model", TARGET, *PROMPT, *method, "--json"]) == 0
    assert caplog.text.count(LINE) == 1
    assert "--draft-model" in caplog.text and "--memory" in caplog.text
    assert json.loads(capsys.readouterr().out)


def test_plain_decoding_that_was_asked_for_needs_no_line(capsys, caplog):
    assert generate.main(["--model", TARGET, *PROMPT, "--method", "ar"]) == 0
    assert LINE not in caplog.text


@pytest.mark.parametrize("given", [[], ["--draft-model", str(DEMO / "drafter")]], ids=["embedded", "named"])
def test_a_pair_with_a_drafter_says_nothing(caplog, given):
    model = ["--model", TARGET] if given else []
    assert generate.main([*model, *given, *PROMPT]) == 0
    assert LINE not in caplog.text


def test_methods_are_compared_without_a_drafter(capsys):
    assert generate.main(["--model", TARGET, *PROMPT, "--compare", "--json"]) == 0
    assert "ddtree" in capsys.readouterr().out


def test_answers_are_remembered_across_runs(tmp_path, capsys):
    """The second run drafts what the first one said."""
    memory = ["--memory", str(tmp_path / "memory"), "--json", "--tree-budget", "8", "--max-tokens", "30"]
    runs = []
    for _ in range(2):
        assert generate.main(["--model", TARGET, "--prompt", "Count to three.", *memory]) == 0
        runs.append(json.loads(capsys.readouterr().out))
    assert runs[0]["text"] == runs[1]["text"]
    assert runs[1]["rounds"] < runs[0]["rounds"]


def test_a_file_that_is_no_memory_is_one_line(tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("hello", encoding="utf-8")
    assert generate.main([*PROMPT, "--memory", str(file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_benchmark_measures_copies_beside_plain_decoding(tmp_path, capsys):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "Count to three."}\n', encoding="utf-8")
    run = ["run", "--model", TARGET, "--data", str(data), "--temps", "0", "--max-tokens", "4"]
    assert benchmark.main([*run, "--output", str(tmp_path / "run.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "lookup auto" in shown and "ar  " in shown and "ddtree auto" not in shown
