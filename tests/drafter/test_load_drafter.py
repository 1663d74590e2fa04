"""Loading is strict: whatever is wrong with a folder is named."""

import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.errors import ConfigError, WeightsError

from ..helpers import save_drafter, small_drafter, small_target


@pytest.fixture
def drafter():
    return small_drafter(small_target())


def same(a, b):
    ours, theirs = (dict(tree_flatten(d.parameters())) for d in (a, b))
    return ours.keys() == theirs.keys() and all(mx.array_equal(ours[k], theirs[k]) for k in ours)


def test_round_trip(tmp_path, drafter):
    save_drafter(tmp_path / "d", drafter)
    assert same(load_drafter(tmp_path / "d"), drafter)


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_sharded_files_and_a_common_prefix(tmp_path, drafter, prefix, shards):
    weights = {prefix + name: value for name, value in tree_flatten(drafter.parameters())}
    save_drafter(tmp_path / "d", drafter, weights, shards=shards)
    assert len(list((tmp_path / "d").glob("*.safetensors"))) == shards
    assert same(load_drafter(tmp_path / "d"), drafter)


def test_bf16_weights_keep_their_type(tmp_path, drafter):
    drafter.set_dtype(mx.bfloat16)
    save_drafter(tmp_path / "d", drafter)
    assert load_drafter(tmp_path / "d").fc.weight.dtype == mx.bfloat16


@pytest.mark.parametrize("ids", [[0, 1, 2], None])
def test_quantised_weights(tmp_path, drafter, ids):
    nn.quantize(drafter, group_size=32, bits=4)
    inner = {"mask_token_id": 1} | ({} if ids is None else {"target_layer_ids": ids})
    save_drafter(tmp_path / "d", drafter, quantization={"group_size": 32, "bits": 4}, dflash_config=inner)
    loaded = load_drafter(tmp_path / "d")
    assert same(loaded, drafter)
    assert loaded.num_taps == 3
    features, block = mx.ones((1, 4, 96)), mx.ones((1, 8, 32))
    a, b = (d(block, features, d.make_cache()) for d in (loaded, drafter))
    np.testing.assert_array_equal(np.array(a), np.array(b))


def test_taps_are_counted_from_fc_when_the_config_is_silent(tmp_path, drafter):
    save_drafter(tmp_path / "d", drafter, dflash_config={"mask_token_id": 1})
    assert load_drafter(tmp_path / "d").num_taps == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.pop("layers.1.self_attn.k_norm.weight"), "layers.1.self_attn.k_norm.weight is missing"),
        (lambda w: w.update({"lm_heads.weight": mx.zeros((2, 2))}), "lm_heads.weight is unexpected"),
        (lambda w: w.update({"lm_head.weight": mx.zeros((2, 2))}), r"lm_head.weight has shape \(2, 2\)"),
        (lambda w: w.update({"norm.weight": mx.zeros((5,))}), r"norm.weight has shape \(5,\), expected \(32,\)"),
        (lambda w: [w.pop(k) for k in list(w) if "mlp" in k], r"and 1 more"),
    ],
)
def test_wrong_tensors_are_named(tmp_path, drafter, damage, message):
    weights = save_drafter(tmp_path / "d", drafter)
    damage(weights)
    save_drafter(tmp_path / "d", drafter, weights)
    with pytest.raises(WeightsError, match=message):
        load_drafter(tmp_path / "d")


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kept", [0, 4, 8, 20, 0.5, 0.75, -1])
def test_truncated_files_are_named(tmp_path, drafter, kept, shards):
    """Cut off in the length, in the header, in the tensors, by one byte; the other file is whole."""
    save_drafter(tmp_path / "d", drafter, shards=shards)
    file = sorted((tmp_path / "d").glob("*.safetensors"))[-1]
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(WeightsError, match=file.name):
        load_drafter(tmp_path / "d")


@pytest.mark.parametrize("content", [b"garbage" * 10, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]", b"<html>404</html>"])
def test_files_that_are_no_safetensors_are_named(tmp_path, drafter, content):
    save_drafter(tmp_path / "d", drafter)
    (tmp_path / "d" / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_drafter(tmp_path / "d")


def test_missing_files(tmp_path, drafter):
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        load_drafter(tmp_path)
    save_drafter(tmp_path / "d", drafter)
    (tmp_path / "d" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"no \*\.safetensors"):
        load_drafter(tmp_path / "d")


@pytest.mark.parametrize(
    "text", ["{", "[1]", "\xff", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' + "9" * 6000 + "}"]
)
def test_invalid_json(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_drafter(tmp_path)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_file_that_is_no_part_of_the_drafter_is_named(tmp_path, drafter, prefix):
    weights = {prefix + name: value for name, value in tree_flatten(drafter.parameters())}
    save_drafter(tmp_path, drafter, weights)
    mx.save_safetensors(str(tmp_path / "stray.safetensors"), {"foo": mx.zeros(3)})
    with pytest.raises(WeightsError, match=r"stray\.safetensors holds nothing of this drafter"):
        load_drafter(tmp_path)


def test_a_second_copy_of_the_weights_is_named(tmp_path, drafter):
    """Which of the two files is meant, nobody can know."""
    save_drafter(tmp_path, drafter)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "stray.safetensors")
    with pytest.raises(WeightsError, match=r"is in model\.safetensors and in stray\.safetensors"):
        load_drafter(tmp_path)


def test_sizes_that_mlx_cannot_have_are_refused(tmp_path, drafter):
    save_drafter(tmp_path, drafter, hidden_size=10**9)
    with pytest.raises(ConfigError, match="MLX makes no network"):
        load_drafter(tmp_path)


FOREIGN = [{"quant_method": "fp8"}, {"quant_method": "compressed-tensors"}, {"bits": "four", "group_size": 32}]
SILENT = {"mask_token_id": 1}  # without layer ids: the taps are counted from fc


@pytest.mark.parametrize("settings", FOREIGN)
@pytest.mark.parametrize("changes", [{}, {"dflash_config": SILENT}])
def test_other_quantisation_formats_are_refused(tmp_path, drafter, settings, changes):
    nn.quantize(drafter, group_size=32, bits=4)
    save_drafter(tmp_path / "d", drafter, quantization_config=settings, **changes)
    with pytest.raises(ConfigError, match="'group_size' and 'bits'"):
        load_drafter(tmp_path / "d")


@pytest.mark.parametrize("changes", [{}, {"dflash_config": SILENT}])
@pytest.mark.parametrize("settings", [{"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 8}])
def test_wrong_quantisation_settings_are_refused(tmp_path, drafter, settings, changes):
    """The tensors were packed in groups of 32 with 4 bits."""
    nn.quantize(drafter, group_size=32, bits=4)
    save_drafter(tmp_path / "d", drafter, quantization=settings, **changes)
    with pytest.raises((ConfigError, WeightsError), match=r"quantization|fc\.weight"):
        load_drafter(tmp_path / "d")


def test_gptq_tensors_are_refused(tmp_path, drafter):
    """Its config has bits and group_size too; its tensors have other names."""
    weights = {
        k.replace(".weight", ".qweight") if "mlp" in k else k: v for k, v in save_drafter(tmp_path, drafter).items()
    }
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    save_drafter(tmp_path, drafter, weights, quantization_config=settings)
    with pytest.raises(WeightsError, match=r"down_proj\.weight is missing"):
        load_drafter(tmp_path)


def test_taps_that_do_not_divide_fc_are_refused(tmp_path, drafter):
    weights = save_drafter(tmp_path, drafter)
    save_drafter(tmp_path, drafter, weights | {"fc.weight": mx.zeros((32, 100))}, dflash_config=SILENT)
    with pytest.raises(WeightsError, match=r"fc\.weight has 100 columns"):
        load_drafter(tmp_path)
