"""One pair has one profile: other weights, adapters and libraries have their own, other folders and windows do not."""

import json
import shutil

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_ddtree import load
from mlx_ddtree.hub.names import DEMO
from mlx_ddtree.tuning import identity
from mlx_ddtree.tuning.identity import profile_path

from ..helpers import small_pair


@pytest.fixture(scope="module")
def plain():
    return profile_path(load(), "off")


def make_adapter(folder, scale):
    how = {"rank": 4, "scale": scale, "dropout": 0.0}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"num_layers": 2, "lora_parameters": how}))
    model = load().target.model
    linear_to_lora_layers(model, 2, how)
    weights = {
        name: mx.random.normal(weight.shape, key=mx.random.key(1))
        for name, weight in tree_flatten(model.parameters())
        if name.endswith(("lora_a", "lora_b"))
    }
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    return str(folder)


def test_an_adapter_is_another_target(tmp_path, plain):
    """Its near ties are others, so the base model's bounds would guard nothing."""
    strong = profile_path(load(adapter_path=make_adapter(tmp_path / "strong", 20.0)), "off")
    weak = profile_path(load(adapter_path=make_adapter(tmp_path / "weak", 2.0)), "off")
    assert len({plain, strong, weak}) == 3


@pytest.mark.parametrize("part", ["target", "drafter"])
def test_changed_weights_under_an_old_name_are_another_pair(plain, part):
    pair = load()
    model = pair.target.model if part == "target" else pair.drafter
    weight = next(w for w in (layer.mlp.down_proj for layer in model.layers))
    weight.weight = weight.weight * 1.01
    assert profile_path(pair, "off") != plain


def test_folders_and_draft_windows_are_not_measured_again(tmp_path, plain):
    shutil.copytree(str(DEMO / "target"), tmp_path / "target")
    shutil.copytree(str(DEMO / "drafter"), tmp_path / "drafter")
    moved = load(str(tmp_path / "target"), draft=str(tmp_path / "drafter"))
    assert profile_path(moved, "off") == plain
    assert profile_path(load(draft_window=64), "off") == plain


def test_a_target_alone_has_a_file_of_its_own(plain):
    alone = profile_path(load(draft=False), "off")
    assert alone is not None and alone != plain
    assert profile_path(load().without_drafter(), "off") == alone


def test_the_blas_and_its_threads_count(monkeypatch, plain):
    monkeypatch.setattr(identity, "use_fast_blas", lambda: "another")
    other = profile_path(load(), "off")
    monkeypatch.undo()
    monkeypatch.setenv("MKL_NUM_THREADS", "61")
    assert len({plain, other, profile_path(load(), "off"), profile_path(load(), "on")}) == 4


def test_models_made_in_memory_have_no_file():
    assert profile_path(small_pair(), "off") is None
