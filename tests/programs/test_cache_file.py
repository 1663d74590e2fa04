"""What mlx_lm.cache_prompt writes is the beginning of a prompt; whatever else a file holds is refused in one line."""

import io
import json
import sys
from contextlib import redirect_stdout
from importlib.resources import files

import mlx.core as mx
import pytest
from mlx_lm import cache_prompt, stream_generate
from mlx_lm.models.cache import KVCache, load_prompt_cache, save_prompt_cache

from mlx_ddtree import load
from mlx_ddtree.programs.cache_file import rest_token_ids
from mlx_ddtree.programs.generate import main

TARGET = str(files("mlx_ddtree") / "demo" / "target")
BEGINNING, END = "Write a function that ", "reverses a string."


def cache_file(path, monkeypatch, *options):
    """A file that mlx-lm's own program has written."""
    command = ["--model", TARGET, "--prompt", BEGINNING, "--prompt-cache-file", str(path), *options]
    monkeypatch.setattr(sys, "argv", ["mlx_lm.cache_prompt", *command])
    with redirect_stdout(io.StringIO()):
        cache_prompt.main()
    return path


def run(capsys, path, *options):
    code = main(["--prompt", END, "--prompt-cache-file", str(path), "-m", "30", *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def test_an_answer_goes_on_behind_the_file_as_mlx_lms_does(capsys, tmp_path, monkeypatch):
    path = cache_file(tmp_path / "a.safetensors", monkeypatch)
    code, out, _ = run(capsys, path, "--json", "--method", "ar")
    pair = load(TARGET, draft=False)
    rest = rest_token_ids(pair.tokenizer, [{"role": "user", "content": END}], {})
    want = stream_generate(pair.target.model, pair.tokenizer, rest, 30, prompt_cache=load_prompt_cache(str(path)))
    assert code == 0
    assert json.loads(out)["tokens"] == [response.token for response in want]


@pytest.mark.parametrize("options", [("--kv-bits", "8", "--quantized-kv-start", "0"), ("--max-kv-size", "16")])
def test_small_caches_of_mlx_lms_are_read(options, capsys, tmp_path, monkeypatch):
    path = cache_file(tmp_path / "a.safetensors", monkeypatch, *options)
    code, out, _ = run(capsys, path, "--tree-budget", "4", "--parity", "off")
    assert code == 0 and "def " in out


def test_the_files_end_token_ends_the_answer(capsys, tmp_path, monkeypatch):
    path = cache_file(tmp_path / "a.safetensors", monkeypatch, "--eos-token", "(")
    code, out, _ = run(capsys, path, "--method", "ar")
    assert code == 0 and out.startswith("```python\ndef ") and "->" not in out


def test_another_models_file_is_refused_by_name(capsys, tmp_path, monkeypatch):
    path = cache_file(tmp_path / "a.safetensors", monkeypatch)
    code, _, errors = run(capsys, path, "--model", "somebody/else")
    assert code == 2
    assert errors == [f"error: {path} was made with {TARGET}, not with somebody/else: give --model {TARGET}"]


def test_a_model_that_was_changed_since_is_refused(capsys, tmp_path):
    path = tmp_path / "a.safetensors"
    cache = [KVCache() for _ in range(len(load(TARGET, draft=False).target.make_cache()))]
    for layer in cache:
        layer.update_and_fetch(mx.zeros((1, 3, 5, 8)), mx.zeros((1, 3, 5, 8)))
    save_prompt_cache(str(path), cache, {"model": TARGET, "tokenizer_config": "{}"})
    code, _, errors = run(capsys, path)
    assert code == 2
    assert "was made with another model" in errors[-1] and "mlx_lm.cache_prompt --model" in errors[-1]


def test_what_is_no_such_file_is_refused_in_one_line(capsys, tmp_path, monkeypatch):
    whole = cache_file(tmp_path / "a.safetensors", monkeypatch).read_bytes()
    torn = tmp_path / "b.safetensors"
    for content in (whole[: len(whole) // 2], b"", b"hello"):
        torn.write_bytes(content)
        code, _, errors = run(capsys, torn)
        assert code == 2
        assert len(errors) == 1 and "no prompt cache that mlx_lm.cache_prompt wrote" in errors[0]
    assert run(capsys, tmp_path / "none")[2] == [
        f"error: {tmp_path / 'none'}: there is no such prompt cache; mlx_lm.cache_prompt makes one"
    ]
