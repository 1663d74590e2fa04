"""Adapters of mlx_lm.lora are applied; whatever else is given as one is refused with one line that names it."""

import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_ddtree import load
from mlx_ddtree.errors import MlxDdtreeError
from mlx_ddtree.hub.load_target import load_target
from mlx_ddtree.hub.names import DEMO

LORA = {"num_layers": 2, "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0}}


def write(folder, config=None, weights=None):
    folder.mkdir()
    if config is not None:
        (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    return folder


def lora_weights():
    model = load_target().target.model
    model.freeze()
    linear_to_lora_layers(model, LORA["num_layers"], LORA["lora_parameters"])
    made = tree_map(lambda p: mx.random.normal(p.shape, p.dtype) * 0.3, model.trainable_parameters())
    return dict(tree_flatten(made))


def test_an_adapter_changes_the_target_and_is_noted(tmp_path):
    """The profile's key needs the note: an adapted model rounds and accepts differently."""
    folder = write(tmp_path / "adapter", LORA, lora_weights())
    adapted = load_target(adapter_path=str(folder))
    plain = load_target()
    ids = mx.array([[1, 2, 3]])
    assert not mx.allclose(adapted.target.model(ids), plain.target.model(ids))
    assert adapted.notes["adapter_folder"] == str(folder.resolve())
    assert "adapter_folder" not in plain.notes
    assert load(adapter_path=folder, draft=False).notes["adapter_folder"] == str(folder.resolve())


FOREIGN = {"foo": mx.zeros(3)}
CASES = {
    "PEFT": ({"peft_type": "LORA", "r": 8, "lora_alpha": 16}, FOREIGN, "PEFT"),
    "no config": (None, FOREIGN, "adapter_config.json does not exist"),
    "no weights": (LORA, None, r"no adapters\.safetensors"),
    "a list": ("[1]", FOREIGN, "JSON object"),
    "deep": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", FOREIGN, "nested too deeply"),
    "no layers": ({"lora_parameters": {}}, FOREIGN, "'num_layers' is None"),
    "layers that are text": (LORA | {"num_layers": "x"}, FOREIGN, "'num_layers' is 'x'"),
    "no parameters": ({"num_layers": 2}, FOREIGN, "'lora_parameters' is None"),
    "rank": (LORA | {"lora_parameters": {"rank": "x"}}, FOREIGN, "'rank' is 'x'"),
    "no scale": (LORA | {"lora_parameters": {"rank": 4}}, FOREIGN, "does not fit"),
    "unknown kind": (LORA | {"fine_tune_type": "ia3"}, FOREIGN, "'fine_tune_type' is 'ia3'"),
    "foreign tensors": (LORA, FOREIGN, "does not fit"),
    "full, of another model": ({"fine_tune_type": "full"}, FOREIGN, "does not fit"),
}


@pytest.mark.parametrize(("config", "weights", "reason"), CASES.values(), ids=CASES.keys())
def test_what_is_no_adapter_is_refused(tmp_path, config, weights, reason):
    folder = write(tmp_path / "adapter", config, weights)
    with pytest.raises(MlxDdtreeError, match=reason) as caught:
        load(adapter_path=str(folder))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/not/there", "no such folder"), (str(DEMO / "README.md"), "is a file"), ("~nobody-here/x", "home folder")],
)
def test_a_path_that_is_no_folder_is_refused(path, reason):
    with pytest.raises(MlxDdtreeError, match=reason):
        load(adapter_path=path)
