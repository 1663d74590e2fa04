"""A target without a known drafter decodes plainly, with one line that says so; what was asked for is still refused."""

import json

import pytest

from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.programs import benchmark, generate

TARGET = str(DEMO / "target")
PROMPT = ["--prompt", "Count to three.", "--max-tokens", "8"]


def test_generate_decodes_plainly_and_says_so(capsys):
    assert generate.main(["--model", TARGET, *PROMPT, "--json"]) == 0
    plain = capsys.readouterr()
    assert plain.err.count("decoding plainly") == 1
    assert "--draft-model" in plain.err
    assert json.loads(plain.out)["method"] == "ar"


def test_a_method_that_was_asked_for_is_refused(capsys):
    assert generate.main(["--model", TARGET, *PROMPT, "--method", "ddtree"]) == 2
    assert "no public drafter is known" in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], ["--draft-model", str(DEMO / "drafter")]], ids=["embedded", "named"])
def test_a_pair_with_a_drafter_says_nothing(capsys, given):
    model = ["--model", TARGET] if given else []
    assert generate.main([*model, *given, *PROMPT]) == 0
    assert "decoding plainly" not in capsys.readouterr().err


def test_the_benchmark_measures_plain_decoding(tmp_path, capsys):
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "Count to three."}\n', encoding="utf-8")
    run = ["run", "--model", TARGET, "--data", str(data), "--temps", "0", "--max-tokens", "4"]
    output = ["--output", str(tmp_path / "run.jsonl")]
    assert benchmark.main([*run, *output]) == 2
    assert "no public drafter is known" in capsys.readouterr().err
    assert benchmark.main([*run, *output, "--methods", "ar"]) == 0
    assert "ar" in capsys.readouterr().out
