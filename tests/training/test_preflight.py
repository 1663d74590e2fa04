"""Whatever is wrong with a run is said before the target answers, which may take hours."""

import json
import subprocess
import sys

import mlx.core as mx
import pytest

from mlx_ddtree import stream_generate
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import OptionError, UnsupportedModelError
from mlx_ddtree.hub.load_target import LoadedTarget
from mlx_ddtree.pair import Pair
from mlx_ddtree.programs import train as program
from mlx_ddtree.programs import training as work
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.preflight import only_run_in, rehearse
from mlx_ddtree.training.setup import default_config, new_drafter

from ..families import FAMILIES, tiny_target
from ..helpers import small_target
from . import templates
from .tiny import CHARACTERS, MASK, make_target, make_tokenizer

SHAPE = ["--layers", "1", "--taps", "2", "--block-size", "4", "--batch-size", "4", "--anchors", "4"]


def write_prompts(folder, count=12, length=3):
    data = folder / "prompts.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": c * length}) for c in CHARACTERS[:count]))
    return data


@pytest.fixture
def loaded(monkeypatch):
    """A function: what the program loads as its target."""

    def load(target, tokenizer):
        monkeypatch.setattr(work, "load_target", lambda name: LoadedTarget(target, tokenizer))

    return load


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask-token", "64"], "--mask-token 64 is outside"),
        (["--mask-token", "3"], "stands in the training data"),
        (["--init", "not/there"], "not/there"),
        (["--resume"], "there is no checkpoint"),
        (["--temp", "-1"], "--temp -1"),
        (["--temp", "nan"], "--temp nan"),
        (["--sampled-share", "2"], "--sampled-share 2"),
        (["--answering-share", "1"], "--answering-share 1.0"),
        (["--answering-share", "nan"], "--answering-share nan"),
        (["--max-tokens", "3072"], "--max-tokens"),
        (["--max-tokens", "3066"], "0 of 12 sequences"),
        (["--block-size", "1"], "a block of 2 or more"),
        (["--lr", "nan"], "learning rate"),
        (["--gamma", "0"], "--gamma 0"),
        (["--dflash2", "--selector-rank", "0"], "not a positive number"),
        (["--output", "prompts.jsonl"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_said_before_the_answers(tmp_path, monkeypatch, capsys, loaded, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "answer_prompts", lambda *_: pytest.fail("the target was asked"))
    loaded(make_target(), make_tokenizer())
    data = write_prompts(tmp_path)
    command = ["--data", str(data), "--output", "out", *SHAPE, "--steps", "2", *options]
    try:
        assert program.main(command) == 2
    except SystemExit as exit:  # an option that argparse refuses
        assert exit.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "responses.jsonl").exists()


def test_another_runs_options_are_refused_before_the_answers(tmp_path, monkeypatch, capsys, loaded):
    loaded(make_target(), make_tokenizer())
    command = ["--data", str(write_prompts(tmp_path)), "--output", str(tmp_path / "out"), "--max-tokens", "16", *SHAPE]
    assert program.main([*command, "--steps", "2"]) == 0
    monkeypatch.setattr(work, "answer_prompts", lambda *_: pytest.fail("the target was asked"))
    for change in (["--lr", "1"], ["--layers", "2"]):
        assert program.main([*command, "--steps", "2", "--resume", *change]) == 2
        assert "--resume continues a run with" in capsys.readouterr().err


def test_one_prompt_is_too_few(tmp_path, capsys, loaded):
    loaded(make_target(), make_tokenizer())
    data = write_prompts(tmp_path, count=1)
    assert program.main(["--data", str(data), "--output", str(tmp_path / "out"), *SHAPE, "--steps", "2"]) == 2
    assert "1 of 1 sequences" in capsys.readouterr().err


def test_a_tokenizer_of_another_model_is_refused(tmp_path, capsys, loaded):
    """MLX does not check the ids that it looks up."""
    loaded(small_target("llama", vocab=20, layers=4), make_tokenizer())
    data = write_prompts(tmp_path, length=1, count=40)
    assert program.main(["--data", str(data), "--output", str(tmp_path / "out"), *SHAPE, "--steps", "2"]) == 2
    assert "do not belong together" in capsys.readouterr().err


@pytest.mark.parametrize("make", [templates.smollm2, templates.llama3])
def test_an_unpadded_vocabulary_from_prompts_to_text(tmp_path, loaded, make):
    """As SmolLM2's and Llama 3's: every row of the embedding is a token's."""
    tokenizer = make()
    target = small_target("llama", vocab=max(tokenizer.get_vocab().values()) + 1, layers=4)
    loaded(target, tokenizer)
    output = tmp_path / "out"
    data = write_prompts(tmp_path)
    command = ["--data", str(data), "--output", str(output), "--max-tokens", "12", *SHAPE, "--steps", "3"]
    assert program.main(command) == 0
    pair = Pair(target, load_drafter(output), tokenizer)
    texts = [
        [token for response in stream_generate(pair, [5, 9, 23], 16, method=method) for token in response.tokens]
        for method in ("ar", "dflash", "ddtree")
    ]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_is_rehearsed_for_every_family(name):
    """With features, loss, gradient and evaluation; nothing of drafter or target is left changed."""
    target = tiny_target(name)
    drafter = new_drafter(default_config(target, 63, layers=1, taps=2, block_size=4), target, 0)
    before = mx.array(drafter.fc.weight)
    rehearse(drafter, target, [Example((5, 9, 23), None), Example((), (3, 4))])
    assert target.taps == ()
    assert mx.array_equal(before, drafter.fc.weight)


def test_a_target_without_numbers_is_refused():
    target = make_target()
    drafter = new_drafter(default_config(target, MASK, layers=1, taps=2, block_size=4), target, 0)
    target.text.model.layers[0].mlp.down_proj.weight *= float("nan")
    with pytest.raises(UnsupportedModelError, match="loss of a first step is nan"):
        rehearse(drafter, target, [Example((5, 9, 23), None)])


def test_one_process_trains_into_a_folder(tmp_path, capsys, loaded):
    program_text = f"""
import time
from pathlib import Path
from mlx_ddtree.training.preflight import only_run_in
with only_run_in(Path({str(tmp_path / "out")!r})):
    print("in", flush=True)
    time.sleep(60)
"""
    loaded(make_target(), make_tokenizer())
    command = ["--data", str(write_prompts(tmp_path)), "--output", str(tmp_path / "out"), "--max-tokens", "8", *SHAPE]
    other = subprocess.Popen([sys.executable, "-c", program_text], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"in\n"
        assert program.main([*command, "--steps", "2"]) == 2
        assert "another process trains into" in capsys.readouterr().err
    finally:
        other.kill()
        other.communicate()
    assert program.main([*command, "--steps", "2"]) == 0
    with only_run_in(tmp_path / "out"), pytest.raises(OptionError, match="--output"), only_run_in(tmp_path / "out"):
        pass
