"""Trees path by path through the whole model: every node's logits are its path's, and a commit leaves what decoding it leaves."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.errors import UnsupportedModelError
from mlx_ddtree.target import PathTarget
from mlx_ddtree.target.paths import spread
from mlx_ddtree.target.rows import Rows

from ..every_model import every_model
from ..families import tiny_model
from .test_families import CONTEXTS, TREES, assert_close, deepest, prefilled, step, verify

KINDS = {
    "chunks": lambda: every_model("llama4"),
    "compressed groups": lambda: every_model("deepseek_v41"),
    "sparse blocks, lists of caches": lambda: every_model("minimax_m3_vl"),
    "windows of keys beside a ring": lambda: every_model("baichuan_m1"),
    "plain caches, which are cut": lambda: every_model("qwen2"),
    "dynamic rotation": lambda: tiny_model(
        {"model_type": "qwen2", "rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 12}
    ),
}
CONTEXT = CONTEXTS["past the windows"]


@pytest.fixture(params=KINDS, scope="module")
def target(request):
    return PathTarget(KINDS[request.param]())


@pytest.mark.parametrize("tree", ["bushy", "chain"])
def test_every_node_sees_its_own_path_only(target, tree):
    tree = TREES[tree]
    cache = prefilled(target, CONTEXT)
    got, _, _ = verify(target, tree, cache, len(CONTEXT), padding=0 if tree.is_chain else 2)
    for leaf in set(range(len(tree))) - set(tree.parents.tolist()):
        plain = prefilled(target, CONTEXT)
        for i in tree.path_to(leaf):
            assert_close(got[i], step(target, tree.token_ids[i], plain))


@pytest.mark.parametrize("tree", ["bushy", "chain"])
@pytest.mark.parametrize("nodes", [1, 3, 99])
def test_a_commit_leaves_what_plain_decoding_leaves(target, tree, nodes):
    """The root alone, a part of the path, and all of it; and once more after it was undone."""
    tree = TREES[tree]
    path = deepest(tree)[:nodes]
    cache, plain = prefilled(target, CONTEXT), prefilled(target, CONTEXT)
    marked = target.mark(cache)
    for _ in range(2):
        target.rewind(cache, marked)
        _, _, pending = verify(target, tree, cache, len(CONTEXT))
        pending.commit(path)
    for i in path:
        step(target, tree.token_ids[i], plain)
    for token in (7, 40, 22):
        assert_close(step(target, token, cache), step(target, token, plain))


def test_features_are_those_of_each_rows_path():
    target, tree = PathTarget(every_model("llama4")), TREES["bushy"]
    target.taps = (0, 2)
    _, features, _ = verify(target, tree, prefilled(target, CONTEXT), len(CONTEXT))
    path = deepest(tree)
    _, alone = target.forward(mx.array(tree.token_ids[path])[None], prefilled(target, CONTEXT))
    assert_close(np.array(features[0, path]), np.array(alone[0]))


def test_copies_for_paths_leave_the_caches_as_they_are():
    target = PathTarget(every_model("baichuan_m1"))
    cache = prefilled(target, CONTEXT)
    for layer in (spread(each, 3) for each in cache):
        assert layer[1].keys.shape[0] == layer[0][0].shape[0] == 3
    assert cache[0][1].keys.shape[0] == cache[0][0][0].shape[0] == 1


def test_several_continuations_are_refused():
    class OtherRows(Rows):
        positions = mask = attention_mask = None

    target = PathTarget(every_model("qwen2"))
    with pytest.raises(UnsupportedModelError, match="one continuation"):
        target.forward_rows(mx.array([[1, 2]]), OtherRows(), target.make_cache())
