"""The pair as other programs find it."""

import json
from pathlib import Path

import mlx.core as mx
from huggingface_hub import snapshot_download

from mlx_ddtree import load
from mlx_ddtree.benchmarking.race.folders import HUB_NAME, make_folders


def test_all_programs_get_the_weights_that_this_package_computes_with(tmp_path):
    folders = make_folders(tmp_path, None, None)
    pair = load()
    dtype = pair.target.embed(mx.array([[0]])).dtype
    for folder in (folders.target, folders.drafter):
        weights = mx.load(str(folder / "model.safetensors"))
        assert {weight.dtype for weight in weights.values()} == {dtype}
    assert json.loads((folders.target / "config.json").read_text())["torch_dtype"] == str(dtype).rpartition(".")[2]
    assert (folders.target / "tokenizer.json").exists()
    assert folders.block_size == pair.drafter.config.block_size


def test_the_drafter_is_in_a_cache_as_a_repository(tmp_path):
    folders = make_folders(tmp_path, None, None)
    found = snapshot_download(HUB_NAME, cache_dir=folders.cache, local_files_only=True)
    assert (Path(found) / "config.json").read_text() == (folders.drafter / "config.json").read_text()
