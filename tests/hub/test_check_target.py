"""Whatever is wrong with a target's folder is one line that names the target's file, and never its drafter."""

import json
import shutil
import signal
import struct

import mlx.core as mx
import pytest

from mlx_ddtree import load
from mlx_ddtree.errors import ConfigError, MlxDdtreeError, UnsupportedModelError
from mlx_ddtree.hub.check_target import check_config, check_target_folder
from mlx_ddtree.hub.public_configs import PUBLIC_CONFIGS

from ..families import COMMON, FAMILIES
from ..helpers import save_target, small_target

DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
HUGE = '{"a": ' + "9" * 6000 + "}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "target"
    save_target(folder, small_target())
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "target")


@pytest.fixture(autouse=True)
def soon():
    """No folder is read for ever."""
    previous = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still loading after 60 s"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def refusal(folder):
    with pytest.raises(MlxDdtreeError) as caught:
        load(folder)  # no drafter is named: that must not be what is said
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and len(message) < 600
    assert "drafter" not in message and "DFlash" not in message
    return caught.value


CONFIGS = {
    "vocab_size": [-5, 0, 1e9, 2**40, "x", True],
    "eos_token_id": [["a"], "a", {"a": 1}, [[1]], [True]],
    "num_hidden_layers": [10**9, -1, 2.5, "3", None],
    "hidden_size": [0, "32"],
    "num_attention_heads": [0, -1],
    "head_dim": [-1],
    "max_position_embeddings": [0, -5, "x"],
    "model_type": [5, None, "no_such_model", "cache", ""],
    "architectures": [5, [5]],
    "rope_theta": ["x", -1],
    "rope_scaling": ["x", {"type": "yarn"}],
    "rms_norm_eps": ["x"],
    "quantization": [5, {"a": 1}],
    "quantization_config": [[1]],
    "text_config": [3, {"num_hidden_layers": 10**9}],
    "vision_config": [{"deep": {"num_hidden_layers": 10**9}}],
    "tie_word_embeddings": ["x"],
    "model_file": ["x.py"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in CONFIGS for value in CONFIGS[key]])
def test_a_wrong_value_in_config_json(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    refusal(folder)


@pytest.mark.parametrize("text", [DEEP, HUGE, "[1]", "{", '{"a": "\\ud800"}'])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_json_that_is_no_config(folder, name, text):
    (folder / name).write_text(text)
    assert name in str(refusal(folder))


def test_end_of_text_in_generation_config(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": ["a"]}')
    assert "eos_token_id" in str(refusal(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    refusal(folder)


def test_a_folder_without_tokenizer_says_so(folder):
    """transformers makes an empty tokenizer of it, and MLX an error about index types."""
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in str(refusal(folder))


@pytest.mark.parametrize("text", [DEEP, "garbage", '{"a": 1}', "[1]"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer(folder, name, text):
    if (name, text) == ("tokenizer_config.json", '{"a": 1}'):
        pytest.skip("unknown settings of a tokenizer are no damage")
    (folder / name).write_text(text)
    with pytest.raises(MlxDdtreeError, match="tokenizer"):
        load(folder, draft=False)


def strange_type(file):
    header = json.dumps({"a": {"dtype": "I128", "shape": [1], "data_offsets": [0, 16]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)


def foreign_tensors(file):
    mx.save_safetensors(str(file), mx.load(str(file)) | {"foreign.weight": mx.zeros(3), "b.c": mx.zeros(3)})


def wrong_shapes(file):
    mx.save_safetensors(str(file), {key: mx.zeros((2, 2)) for key in mx.load(str(file))})


@pytest.mark.parametrize("damage", [strange_type, foreign_tensors, wrong_shapes, lambda f: f.write_bytes(b"x" * 50)])
def test_damaged_weights(folder, damage):
    damage(folder / "model.safetensors")
    with pytest.raises(MlxDdtreeError) as caught:
        load(folder, draft=False)
    assert "\n" not in str(caught.value)


def test_weights_without_metadata_are_read(folder):
    file = folder / "model.safetensors"
    mx.save_safetensors(str(file), mx.load(str(file)))
    assert load(folder, draft=False).drafter is None


def test_a_path_in_which_mlx_lm_finds_nothing_says_so(folder, tmp_path):
    renamed = folder.rename(tmp_path / "target [4 bit]")
    with pytest.raises(ConfigError, match="rename"):
        load(renamed, draft=False)


def test_weights_that_are_not_fetched_yet_are_not_missed(folder):
    (folder / "model.safetensors").unlink()
    check_target_folder(folder, weights=False)


@pytest.mark.parametrize("config", [*PUBLIC_CONFIGS.values(), *(COMMON | c for c in FAMILIES.values())])
def test_configs_of_real_models_pass(config):
    check_config(config, "config.json")


def test_an_unknown_model_type_is_called_that(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no_such_model"}))
    assert isinstance(refusal(folder), UnsupportedModelError)
