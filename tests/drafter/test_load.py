"""Loading is strict: whatever is wrong with a folder is named."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.load import load_drafter
from mlx_ddtree.errors import ConfigError, WeightsError

from ..helpers import small_drafter, small_target


def config_of(drafter, **changes):
    config = drafter.config
    names = (
        "hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size "
        "rms_norm_eps rope_theta block_size"
    )
    values = {name: getattr(config, name) for name in names.split()}
    inner = {"target_layer_ids": list(config.target_layer_ids), "mask_token_id": config.mask_token_id}
    return {"architectures": ["DFlashDraftModel"], **values, "dflash_config": inner} | changes


def save(folder, drafter, weights=None, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(drafter, **changes)))
    weights = dict(tree_flatten(drafter.parameters())) if weights is None else weights
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return weights


@pytest.fixture
def drafter():
    return small_drafter(small_target())


def same(a, b):
    ours, theirs = (dict(tree_flatten(d.parameters())) for d in (a, b))
    return ours.keys() == theirs.keys() and all(mx.array_equal(ours[k], theirs[k]) for k in ours)


def test_round_trip(tmp_path, drafter):
    save(tmp_path / "d", drafter)
    assert same(load_drafter(tmp_path / "d"), drafter)


def test_sharded_files_and_a_common_prefix(tmp_path, drafter):
    weights = {f"model.{k}": v for k, v in save(tmp_path / "d", drafter).items()}
    (tmp_path / "d" / "model.safetensors").unlink()
    for i in range(2):
        part = dict(list(weights.items())[i::2])
        mx.save_safetensors(str(tmp_path / "d" / f"model-0000{i + 1}-of-00002.safetensors"), part)
    assert same(load_drafter(tmp_path / "d"), drafter)


def test_bf16_weights_keep_their_type(tmp_path, drafter):
    drafter.set_dtype(mx.bfloat16)
    save(tmp_path / "d", drafter)
    assert load_drafter(tmp_path / "d").fc.weight.dtype == mx.bfloat16


@pytest.mark.parametrize("ids", [[0, 1, 2], None])
def test_quantised_weights(tmp_path, drafter, ids):
    nn.quantize(drafter, group_size=32, bits=4)
    inner = {"mask_token_id": 1} | ({} if ids is None else {"target_layer_ids": ids})
    save(tmp_path / "d", drafter, quantization={"group_size": 32, "bits": 4}, dflash_config=inner)
    loaded = load_drafter(tmp_path / "d")
    assert same(loaded, drafter)
    assert loaded.num_taps == 3
    features, block = mx.ones((1, 4, 96)), mx.ones((1, 8, 32))
    a, b = (d(block, features, d.make_cache()) for d in (loaded, drafter))
    np.testing.assert_array_equal(np.array(a), np.array(b))


def test_taps_are_counted_from_fc_when_the_config_is_silent(tmp_path, drafter):
    save(tmp_path / "d", drafter, dflash_config={"mask_token_id": 1})
    assert load_drafter(tmp_path / "d").num_taps == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("layers.1.self_attn.k_norm.weight"), "layers.1.self_attn.k_norm.weight is missing"),
        (lambda w: w.update({"lm_head.weight": mx.zeros((2, 2))}), "lm_head.weight is unexpected"),
        (lambda w: w.update({"norm.weight": mx.zeros((5,))}), r"norm.weight has shape \(5,\), expected \(32,\)"),
        (lambda w: [w.pop(k) for k in list(w) if "mlp" in k], r"and 1 more"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, drafter, damage, message):
    weights = save(tmp_path / "d", drafter)
    damage(weights)
    save(tmp_path / "d", drafter, weights)
    with pytest.raises(WeightsError, match=message):
        load_drafter(tmp_path / "d")


@pytest.mark.parametrize("content", [b"", b"garbage" * 10, None])
def test_corrupt_files_are_named(tmp_path, drafter, content):
    save(tmp_path / "d", drafter)
    file = tmp_path / "d" / "model.safetensors"
    file.write_bytes(file.read_bytes()[: 3 * file.stat().st_size // 4] if content is None else content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_drafter(tmp_path / "d")


def test_missing_files(tmp_path, drafter):
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        load_drafter(tmp_path)
    save(tmp_path / "d", drafter)
    (tmp_path / "d" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no \*\.safetensors"):
        load_drafter(tmp_path / "d")


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_invalid_json(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_drafter(tmp_path)


def test_other_quantisation_formats_are_refused(tmp_path, drafter):
    save(tmp_path / "d", drafter, quantization_config={"quant_method": "fp8"})
    with pytest.raises(ConfigError, match="'group_size' and 'bits'"):
        load_drafter(tmp_path / "d")
