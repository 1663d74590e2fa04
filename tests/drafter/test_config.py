"""Every published layout of config.json is read the same; what is not understood is refused by name."""

import pytest

from mlx_ddtree.drafter.config import DrafterConfig, default_target_layer_ids
from mlx_ddtree.errors import ConfigError

BASE = {
    "architectures": ["DFlashDraftModel"],
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 5,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 40960,
    "block_size": 16,
    "num_target_layers": 36,
    "dflash_config": {"target_layer_ids": [1, 9, 17, 25, 33], "mask_token_id": 151669},
    "torch_dtype": "bfloat16",
    "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
}
SLIDING = [2048, 2048, 2048, 2048, None]


def read(without=(), **changes):
    config = {k: v for k, v in (BASE | changes).items() if k not in without}
    return DrafterConfig.from_dict(config)


def test_the_plain_layout():
    config = read()
    assert (config.block_size, config.mask_token_id, config.num_target_layers) == (16, 151669, 36)
    assert config.target_layer_ids == (1, 9, 17, 25, 33)
    assert config.windows == (None,) * 5
    assert config.causal == (False,) * 5
    assert "taps (1, 9, 17, 25, 33)" in config.describe()


INNER = {"target_layer_ids": [5, 19], "mask_token_id": 7, "block_size": 8, "num_target_layers": 64}
READINGS = [
    ({"without": ["block_size", "num_target_layers"], "dflash_config": INNER}, "block_size", 8),
    ({"without": ["block_size", "num_target_layers"], "dflash_config": INNER}, "num_target_layers", 64),
    ({"dflash_config": INNER}, "block_size", 16),  # the top level wins
    ({"without": ["dflash_config"], "target_layer_ids": [1, 2], "mask_token_id": 3}, "target_layer_ids", (1, 2)),
    ({"without": ["dflash_config"], "target_layer_ids": [1, 2], "mask_token_id": 3}, "mask_token_id", 3),
    ({"dflash_config": {"mask_token_id": 1}}, "target_layer_ids", None),
    ({"dflash_config": {}, "model_type": "gemma4"}, "mask_token_id", 4),
    ({"without": ["num_target_layers"]}, "num_target_layers", None),
    ({"without": ["rope_theta"], "rope_parameters": {"rope_theta": 1e7, "rope_type": "default"}}, "rope_theta", 1e7),
    ({"rope_parameters": {"rope_theta": 1e7, "rope_type": "default"}}, "rope_scaling", None),
    (
        {"without": ["rope_theta"], "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e6}},
        "rope_theta",
        5e6,
    ),
    ({"rope_is_neox_style": False}, "rope_traditional", True),
    ({"rope_is_neox_style": True}, "rope_traditional", False),
    ({"interleaved": True}, "rope_traditional", True),
    (
        {"layer_types": ["sliding_attention"] * 4 + ["full_attention"], "sliding_window": 2048},
        "windows",
        tuple(SLIDING),
    ),
    ({"layer_types": ["full_attention"] * 5, "sliding_window": 4096}, "windows", (None,) * 5),
    ({"sliding_windows": SLIDING}, "windows", tuple(SLIDING)),
    ({"sliding_window": 512, "sliding_window_pattern": 5}, "windows", (512, 512, 512, 512, None)),
    ({"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 5}, "windows", (None,) * 5),
    ({"sliding_window": 4096}, "windows", (None,) * 5),
    ({"dflash_config": {**INNER, "use_swa": True, "swa_window_size": 2048}}, "windows", (2048,) * 5),
    ({"draft_window_size": 1024}, "windows", (1024,) * 5),
    ({"sliding_windows": SLIDING}, "causal", (True, True, True, True, False)),
    ({"sliding_windows": SLIDING, "is_causal": False}, "causal", (False,) * 5),
    ({"sliding_windows": SLIDING, "is_causal": None}, "causal", (True, True, True, True, False)),
    ({"dflash_config": {**INNER, "causal": True}}, "causal", (True,) * 5),
    ({"dflash_query_causal": True}, "causal", (True,) * 5),
    ({"final_logit_softcapping": 30.0}, "logit_softcap", 30.0),
    ({"output_multiplier": 0.5}, "logit_scale", 0.5),
    ({"embed_scale": 62.5}, "embed_scale", 62.5),
    ({"input_embedding_scale": 12.0}, "embed_scale", 12.0),
    ({"attention_bias": True}, "attention_bias", True),
    ({"without": ["head_dim"]}, "head_dim", 80),
    ({"without": ["num_key_value_heads"]}, "num_key_value_heads", 32),
    ({"quantization": {"group_size": 64, "bits": 4}}, "quantization", {"group_size": 64, "bits": 4}),
]


@pytest.mark.parametrize(("changes", "field", "value"), READINGS)
def test_variants(changes, field, value):
    assert getattr(read(**changes), field) == value


REFUSALS = [
    *(
        ({"architectures": [name]}, name)
        for name in ("DFlash2DraftModel", "MuseGlimmerAssistantModel", "DominoDraftModel")
    ),
    ({"selector_rank": 64}, "selector_rank"),
    ({"dflash_config": {**INNER, "conv_kernel_size": 2}}, "conv_kernel_size"),
    ({"projector_type": "dspark"}, "projector_type"),
    ({"gating": True}, "gating"),
    ({"attention_sink_bias": True}, "attention_sink_bias"),
    ({"attention_mode": "mla"}, "attention_mode"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"draft_vocab_size": 32000}, "draft_vocab_size"),
    ({"dflash_config": {"target_layer_ids": [1]}}, "mask_token_id"),
    ({"without": ["rope_theta"]}, "rope_theta"),
    ({"without": ["hidden_size"]}, "hidden_size"),
    ({"num_hidden_layers": "five"}, "num_hidden_layers"),
    ({"block_size": 1}, "block_size"),
    ({"block_size": True}, "block_size"),
    ({"layer_types": ["full_attention"] * 4}, "4 layer types"),
    ({"layer_types": ["linear_attention"] * 5}, "linear_attention"),
    ({"layer_types": ["sliding_attention"] * 5}, "swa_window_size"),
]


@pytest.mark.parametrize(("changes", "name"), REFUSALS)
def test_refusals_name_the_key(changes, name):
    with pytest.raises(ConfigError, match=name):
        read(**changes)


@pytest.mark.parametrize(
    ("layers", "taps", "ids"),
    [(36, 5, (1, 9, 17, 25, 33)), (28, 5, (1, 7, 13, 19, 25)), (48, 5, (1, 12, 23, 34, 45)), (10, 1, (5,))],
)
def test_default_target_layer_ids(layers, taps, ids):
    assert default_target_layer_ids(layers, taps) == ids
