"""A rank reads the weights a layer at a time and keeps its own part of them."""

import pytest

from mlx_ddtree.hub.load_target import load_target

from .folders import save_pair
from .launch import Ranks

pytestmark = pytest.mark.ranks


def test_each_rank_keeps_its_part(tmp_path):
    layers, sizes = 8, {"hidden_size": 256, "intermediate_size": 4096, "tie_word_embeddings": False}
    folder = save_pair(tmp_path / "pair", "qwen3", num_hidden_layers=layers, **sizes) / "target"
    target = load_target(str(folder)).target
    whole = sum(x.nbytes for layer in target.layers for x in _arrays(layer))
    with Ranks(2, ["tests.distributed.programs", "memory", folder], tmp_path / "ranks") as ranks:
        ((first, second),) = ranks.results()
    layer = whole / layers
    for rank in (first, second):
        assert rank["weights"] < 0.52 * whole
        assert rank["peak"] < rank["weights"] + 2.5 * layer  # a layer in 16 bits and in 32, and a half of it
    assert second["weights"] < first["weights"]  # which has the head


def _arrays(layer):
    return [x for module in layer.modules() for x in module.parameters().values() if hasattr(x, "nbytes")]
