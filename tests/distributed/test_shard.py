"""Which files a stage of a pipeline downloads, and what mlx-lm can split."""

import json
import subprocess
import sys

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_ddtree.distributed.shard import check_shardable, repeat_kv_heads, stage_files
from mlx_ddtree.errors import UnsupportedModelError

from ..families import FAMILIES, tiny_model
from ..hub.loopback import running_hub
from .folders import save_pair
from .launch import ROOT

FETCH = """
import sys
from types import SimpleNamespace
from mlx_ddtree.distributed.shard import fetch_stage
rank = int(sys.argv[1])
print(fetch_stage(SimpleNamespace(rank=lambda: rank, size=lambda: 2), "owner/model", None))
"""


@pytest.mark.parametrize(("rank", "layers"), [(0, (2, 3)), (1, (0, 1))])  # rank 0 has the last layers
def test_a_stage_downloads_its_layers_only(rank, layers, tmp_path):
    folder = save_pair(tmp_path / "pair", "qwen3_moe") / "target"
    weights, index = mx.load(str(folder / "model.safetensors")), {}
    (folder / "model.safetensors").unlink()
    for number in range(5):  # a file for each of 4 layers, one for the rest
        file = f"model-{number + 1:05d}-of-00005.safetensors"
        part = {k: v for k, v in weights.items() if (f"layers.{number}." in k if number < 4 else "layers." not in k)}
        mx.save_safetensors(str(folder / file), part)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with running_hub() as hub:
        hub.add("owner/model", folder)
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", FETCH, str(rank)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        got = {name for name in hub.downloads() if name.endswith(".safetensors")}
    assert got == {f"model-{n + 1:05d}-of-00005.safetensors" for n in (*layers, 4)}


@given(st.dictionaries(st.integers(0, 20), st.integers(0, 3), min_size=1), st.sets(st.integers(0, 20)))
def test_every_weight_of_a_stage_is_in_its_files(file_of, layers):
    weights = {f"model.layers.{layer}.mlp.weight": f"file{number}" for layer, number in file_of.items()}
    files = stage_files(weights | {"model.norm.weight": "rest"}, layers)
    assert files == {"rest", *(f"file{number}" for layer, number in file_of.items() if layer in layers)}


@pytest.mark.parametrize(
    ("name", "ranks", "pipeline", "message"),
    [
        ("gemma4, experts", 2, False, "cannot split model type 'gemma4' over several machines"),
        ("qwen3", 2, True, "no pipeline for model type 'qwen3': leave out --pipeline"),
        ("qwen3_next", 2, False, "cannot split layers of model type 'qwen3_next': use --pipeline"),
        ("qwen3", 3, False, "3 ranks cannot share 4 attention heads"),
        ("minimax", 4, False, "4 ranks cannot share 2 attention heads"),
        ("qwen3_moe", 5, True, "5 ranks are more than the 4 layers"),
    ],
)
def test_what_cannot_be_split_is_refused(name, ranks, pipeline, message):
    with pytest.raises(UnsupportedModelError, match=message):
        check_shardable(tiny_model(FAMILIES[name]), ranks, pipeline)


@pytest.mark.parametrize("bits", [None, 4])
def test_ranks_beyond_the_heads_get_the_same_one(bits):
    model = tiny_model(FAMILIES["qwen3"], bits=bits)
    before = [dict(tree_flatten(layer.self_attn.k_proj.parameters())) for layer in model.layers]
    repeat_kv_heads(model.layers, 4)
    for layer, old in zip(model.layers, before, strict=True):
        assert layer.self_attn.n_kv_heads == 4
        for key, rows in tree_flatten(layer.self_attn.k_proj.parameters()):
            heads = old[key].reshape(2, -1, rows.shape[-1])
            for rank, part in enumerate(mx.split(rows, 4)):
                assert mx.array_equal(part, heads[rank // 2])
