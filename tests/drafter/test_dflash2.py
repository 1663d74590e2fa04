"""DFlash 2: the convolutions and the selector compute their definitions (reference.py), from every layout."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_ddtree.drafter.config import DFlash2Config, DrafterConfig
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import ConfigError, PairError, WeightsError
from mlx_ddtree.pair import check_pair

from ..helpers import public_config, save_drafter, sharpen, small_drafter, small_target
from .reference import Reference

TARGET = small_target(layers=3)
TAPS, BLOCK = (0, 1, 2), 8
PUBLISHED = {
    "architectures": ["DFlash2DraftModel"], "model_type": "qwen3", "dtype": "bfloat16", "hidden_act": "silu",
    "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 5, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 248320, "rms_norm_eps": 1e-6, "num_target_layers": 64,
    "max_position_embeddings": 262144, "max_window_layers": 5, "sliding_window": 2048, "use_sliding_window": True,
    "layer_types": ["sliding_attention"] * 5, "is_causal": False, "tie_word_embeddings": False,
    "rope_parameters": {"rope_theta": 10000000, "rope_type": "default"},
    "dflash_config": {
        "block_size": 8, "conv_group_size": 16, "conv_kernel_size": 2, "mask_token_id": 248070,
        "selector_rank": 256, "selector_top_k": 16, "target_layer_ids": [5, 19, 33, 47, 61],
    },
}  # fmt: skip
"""Qwen3.8-27B-DFlash2's config.json, as public integrations check it."""


def small_drafter2(target=TARGET, *, taps=TAPS, kernel=2, group=8, rank=6, top_k=5, seed=1, **config):
    """A random DFlash 2 drafter with no weight at its neutral value."""
    config = public_config(small_drafter(target, taps=taps)) | {
        "architectures": ["DFlash2DraftModel"], "block_size": BLOCK, "conv_kernel_size": kernel,
        "conv_group_size": group, "selector_rank": rank, "selector_top_k": top_k,
    } | config  # fmt: skip
    mx.random.seed(seed)
    drafter = make_drafter(DrafterConfig.from_dict(config), len(taps))
    sharpen(drafter)
    drafter.update(tree_map(lambda p: p + 0.3 * mx.random.normal(p.shape), drafter.parameters()))
    mx.eval(drafter.parameters())
    return drafter


def reference(drafter):
    c = drafter.config
    return Reference(
        {name: np.array(p.astype(mx.float32), np.float64) for name, p in tree_flatten(drafter.parameters())},
        c.num_attention_heads, c.num_key_value_heads, c.windows, c.causal, c.rope_theta, c.rms_norm_eps,
        group_size=c.dflash2.conv_group_size,
    )  # fmt: skip


def rows(rng, count, width):
    return rng.normal(size=(count, width)).astype(np.float32)


def test_the_published_config():
    config = DrafterConfig.from_dict(PUBLISHED)
    assert config.dflash2 == DFlash2Config(2, 16, 256, 16)
    assert (config.block_size, config.mask_token_id, config.rope_theta) == (8, 248070, 1e7)
    assert config.windows == (2048,) * 5 and config.causal == (False,) * 5
    assert "DFlash 2" in config.describe()


def test_the_four_sizes_may_stand_at_the_top_level():
    inner = PUBLISHED["dflash_config"]
    flat = {k: v for k, v in PUBLISHED.items() if k != "dflash_config"} | inner
    assert DrafterConfig.from_dict(flat) == DrafterConfig.from_dict(PUBLISHED)
    del flat["block_size"]
    assert DrafterConfig.from_dict(flat).block_size == 8


@pytest.mark.parametrize("key", ["conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k"])
@pytest.mark.parametrize("value", [None, 0, -1, "2", 1.5, True])
def test_missing_or_wrong_sizes_are_named(key, value):
    inner = PUBLISHED["dflash_config"] | {key: value}
    with pytest.raises(ConfigError, match=key):
        DrafterConfig.from_dict(PUBLISHED | {"dflash_config": inner})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_group_size": 7}, "conv_group_size.*does not divide"),
        ({"selector_top_k": 248321}, "selector_top_k.*vocabulary"),
        ({"architectures": ["DFlashDraftModel"]}, "belongs to DFlash2DraftModel"),
        ({"vocab_size": None}, "vocab_size"),
        ({"conv_bias": True}, "conv_bias.*not understood"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        DrafterConfig.from_dict(PUBLISHED | changes)


@pytest.mark.parametrize("config", [{}, {"kernel": 3}, {"kernel": 1}, {"sliding_windows": [5, 0], "causal": False}])
@pytest.mark.parametrize("size", [2, BLOCK])
def test_rounds_equal_the_reference(config, size):
    """Each round appends features to the cache; the reference sees them all at once."""
    drafter = small_drafter2(**config)
    expected, rng, cache = reference(drafter), np.random.default_rng(0), drafter.make_cache()
    seen = np.zeros((0, len(TAPS) * 32), np.float32)
    for new in (5, 0, 9, 1):
        features, block = rows(rng, new, len(TAPS) * 32), rows(rng, size, 32)
        seen = np.concatenate([seen, features])
        got = drafter(mx.array(block)[None], mx.array(features)[None], cache)[0]
        np.testing.assert_allclose(np.array(got), expected(block, seen), atol=5e-4)


def test_pairs_are_scored_by_their_definition():
    """At position 0 after the root, whatever the row."""
    drafter = small_drafter2()
    selector, expected, rng = drafter.selector, reference(drafter), np.random.default_rng(1)
    hidden = rows(rng, 4, 32)
    candidates = np.stack([rng.permutation(64)[:5] for _ in range(4)]).astype(np.int32)
    edges = np.array(selector.edges(mx.array(9), mx.array(hidden), mx.array(candidates)))
    for d, r, c in np.ndindex(edges.shape):
        parent = candidates[d - 1, r] if d else 9
        np.testing.assert_allclose(edges[d, r, c], expected.edge(parent, candidates[d, c], hidden[d]), atol=1e-3)


def test_a_fresh_drafter_is_a_v1_drafter():
    """Before training, convolutions pass rows through where their projections are zero."""
    v1 = small_drafter(TARGET)
    v2 = make_drafter(small_drafter2().config, len(TAPS))
    v2.load_weights(tree_flatten(v1.parameters()), strict=False)
    for layer in v2.layers:
        for conv in (layer.attention_conv, layer.mlp_conv):
            conv.kernel_projection.weight = mx.zeros_like(conv.kernel_projection.weight)
    rng = np.random.default_rng(2)
    block, features = mx.array(rows(rng, BLOCK, 32))[None], mx.array(rows(rng, 6, 96))[None]
    a, b = (d(block, features, d.make_cache()) for d in (v1, v2))
    np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6)


def save2(folder, drafter, weights=None, **config):
    """A folder in the public layout: nested sizes, codebooks without `.weight`."""
    shape = vars(drafter.config.dflash2)
    inner = {"mask_token_id": 1, "target_layer_ids": list(TAPS), **shape}
    stored = weights or {k.replace("codebook.weight", "codebook"): v for k, v in tree_flatten(drafter.parameters())}
    changes = {"architectures": ["DFlash2DraftModel"], "dflash_config": inner} | config
    return save_drafter(folder, drafter, stored, **changes)


def same(a, b):
    ours, theirs = (dict(tree_flatten(d.parameters())) for d in (a, b))
    return ours.keys() == theirs.keys() and all(mx.array_equal(ours[k], theirs[k]) for k in ours)


def test_loading_with_and_without_the_suffix(tmp_path):
    drafter = small_drafter2()
    stored = save2(tmp_path / "public", drafter)
    assert "candidate_selector.predecessor_codebook" in stored
    save2(tmp_path / "suffix", drafter, dict(tree_flatten(drafter.parameters())))
    for folder in ("public", "suffix"):
        assert same(load_drafter(tmp_path / folder), drafter)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("candidate_selector.successor_codebook"), "successor_codebook.weight is missing"),
        (lambda w: w.pop("layers.1.mlp_conv.base_kernel"), "layers.1.mlp_conv.base_kernel is missing"),
        (lambda w: w.update({"candidate_selector.bias": mx.zeros(2)}), "candidate_selector.bias is unexpected"),
        (lambda w: w.update({"layers.0.attention_conv.base_kernel": mx.zeros((2, 3, 32))}), "shape"),
        (
            lambda w: w.update({"candidate_selector.successor_codebook.weight": mx.zeros((64, 6))}),
            "successor_codebook is there under two names",
        ),
    ],
)
def test_wrong_tensors_are_named(tmp_path, damage, message):
    drafter = small_drafter2()
    weights = save2(tmp_path, drafter)
    damage(weights)
    save2(tmp_path, drafter, weights)
    with pytest.raises(WeightsError, match=message):
        load_drafter(tmp_path)


def test_quantised_weights(tmp_path):
    drafter = small_drafter2(rank=32)
    nn.quantize(drafter, group_size=32, bits=8)
    save2(tmp_path, drafter, dict(tree_flatten(drafter.parameters())), quantization={"group_size": 32, "bits": 8})
    loaded = load_drafter(tmp_path)
    assert same(loaded, drafter)
    candidates = mx.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    assert loaded.candidate_selector.edges(mx.array(9), mx.ones((2, 32)), candidates).shape == (2, 5, 5)


ASSISTANT = {
    "architectures": ["MuseGlimmerAssistantModel"], "model_type": "muse_glimmer_assistant", "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "hidden_act": "silu",
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}, "layer_types": ["sliding_attention"] * 2,
    "sliding_window": 16, "block_size": 16, "mask_token_id": 1, "target_layer_ids": [0, 1, 2],
    "attention_dropout": 0.0, "dtype": "bfloat16",
}  # fmt: skip
"""Meta's layout, as published: no vocabulary, no target's depth."""


def test_metas_assistants_are_v1_drafters_under_other_names(tmp_path):
    """Bidirectional although their layers slide."""
    config = DrafterConfig.from_dict(ASSISTANT)
    assert config.vocab_size is None and config.causal == (False, False) and config.windows == (16, 16)
    drafter = make_drafter(config, 3)
    assert type(drafter) is DFlashDrafter and drafter.selector is None
    theirs = {"fc.weight": "encoder.fc.weight", "hidden_norm.weight": "encoder.output_norm_enc.weight"}
    weights = {theirs.get(name, name): p for name, p in tree_flatten(drafter.parameters())}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    (tmp_path / "config.json").write_text(json.dumps(ASSISTANT))
    assert same(load_drafter(tmp_path), drafter)
    assert check_pair(TARGET, drafter) == (0, 1, 2)
    with pytest.raises(PairError, match="hidden size"):
        check_pair(small_target(hidden=64), drafter)


@pytest.mark.parametrize("said", [{"is_causal": True}, {"causal": True}, {"is_causal": None}])
def test_an_assistant_is_bidirectional_whatever_the_file_says(said):
    assert DrafterConfig.from_dict(ASSISTANT | said).causal == (False, False)
