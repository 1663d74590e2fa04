"""Every published layout of config.json is read the same; what is not understood is refused by name."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
INNER = {"target_layer_ids": [5, 19], "mask_token_id": 7, "block_size": 8, "num_target_layers": 64}
READINGS = [
    ({"without": ["block_size", "num_target_layers"], "dflash_config": INNER}, "block_size", 8),
    ({"without": ["block_size", "num_target_layers"], "dflash_config": INNER}, "num_target_layers", 64),
    ({"dflash_config": INNER}, "block_size", 16),  # the top level wins
    ({"without": ["dflash_config"], "target_layer_ids": [1, 2], "mask_token_id": 3}, "target_layer_ids", (1, 2)),
    ({"without": ["dflash_config"], "target_layer_ids": [1, 2], "mask_token_id": 3}, "mask_token_id", 3),
    ({"dflash_config": {"mask_token_id": 1}}, "target_layer_ids", None),
    ({"dflash_config": {"target_layer_ids": []}, "mask_token_id": 3}, "target_layer_ids", None),
    ({"dflash_config": {}, "model_type": "gemma4"}, "mask_token_id", 4),
    ({"dflash_config": {"mask_token_id": 9}, "model_type": "gemma4_text"}, "mask_token_id", 9),
    ({"without": ["num_target_layers"]}, "num_target_layers", None),
    ({"without": ["rope_theta"], "rope_parameters": {"rope_theta": 1e7, "rope_type": "default"}}, "rope_theta", 1e7),
    ({"rope_parameters": {"rope_theta": 1e7, "rope_type": "default"}}, "rope_scaling", None),
    (
        {"without": ["rope_theta"], "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e6}},
        "rope_theta",
        5e6,
    ),
    ({"rope_scaling": YARN}, "rope_theta", 1e6),
    ({"rope_scaling": YARN}, "rope_scaling", YARN),
    ({"without": ["rope_theta"], "rope_parameters": YARN | {"rope_theta": 1e7}}, "rope_theta", 1e7),
    ({"rope_parameters": YARN | {"rope_theta": 1e7}}, "rope_scaling", YARN | {"rope_theta": 1e7}),
    ({"rope_scaling": None, "rope_parameters": {"rope_theta": 1e6}}, "rope_scaling", None),
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
    ({"dflash_config": {**INNER, "use_swa": False, "swa_window_size": 2048}}, "windows", (None,) * 5),
    (
        {
            "layer_types": ["sliding_attention"] * 4 + ["full_attention"],
            "dflash_config": {**INNER, "swa_window_size": 9},
        },
        "windows",
        (9, 9, 9, 9, None),
    ),
    ({"layer_types": ["sliding_attention"] * 5, "sliding_window": 2048}, "windows", (2048,) * 5),
    ({"sliding_window": 4096, "use_sliding_window": True}, "windows", (4096,) * 5),
    (
        {"dflash_config": {**INNER, "sliding_window": 512, "sliding_window_pattern": 2}},
        "windows",
        (512, None, 512, None, 512),
    ),
    ({"sliding_windows": [512, 0, -1, None, 4]}, "windows", (512, None, None, None, 4)),
    ({"draft_window_size": 1024}, "windows", (1024,) * 5),
    ({"sliding_windows": SLIDING}, "causal", (True, True, True, True, False)),
    ({"sliding_windows": SLIDING, "is_causal": False}, "causal", (False,) * 5),
    ({"sliding_windows": SLIDING, "is_causal": None}, "causal", (True, True, True, True, False)),
    ({"dflash_config": {**INNER, "causal": True}}, "causal", (True,) * 5),
    ({"dflash_config": {**INNER, "causal": None}, "sliding_windows": SLIDING}, "causal", (True,) * 4 + (False,)),
    ({"dflash_query_causal": True}, "causal", (True,) * 5),
    ({"draft_window_size": 1024, "causal": False}, "causal", (False,) * 5),
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
        for name in ("LiLiCorrDraftModel", "DeepseekV4ForCausalLM", "Qwen3ForCausalLM")
    ),
    ({"selector_rank": 64}, "selector_rank"),
    ({"dflash_config": {**INNER, "conv_kernel_size": 2}}, "conv_kernel_size"),
    ({"projector_type": "mamba"}, "projector_type"),
    ({"gating": True}, "gating"),
    ({"attention_mode": "mla"}, "attention_mode"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"hidden_activation": "gelu_pytorch_tanh"}, "'hidden_act' = 'gelu_pytorch_tanh'"),
    ({"draft_vocab_size": 200000}, "draft_vocab_size"),
    ({"target_hidden_size": 4096}, "target_hidden_size"),
    ({"model_type": "qwen3_5"}, "model_type"),
    ({"markov_rank": 8, "markov_head_type": "lstm"}, "markov_head_type"),
    ({"enable_confidence_head": True, "confidence_head_with_markov": True}, "confidence_head_with_markov"),
    ({"dflash_config": {**INNER, "projector_type": "domino"}}, "gru_hidden_dim"),
    ({"log_snr_conditioning": True}, "min_log_snr"),
    ({"use_aux_hidden_state": False}, "use_aux_hidden_state"),
    ({"dflash_config": {"target_layer_ids": [1]}}, "mask_token_id"),
    ({"without": ["rope_theta"]}, "rope_theta"),
    ({"without": ["hidden_size"]}, "hidden_size"),
    ({"num_hidden_layers": "five"}, "num_hidden_layers"),
    ({"without": ["vocab_size"]}, "vocab_size"),
    ({"without": ["intermediate_size"]}, "intermediate_size"),
    ({"num_key_value_heads": 5}, "num_key_value_heads"),
    ({"rope_scaling": {"rope_type": "magic", "factor": 2.0}}, "rope_type.*magic"),
    ({"rope_scaling": {"factor": 2.0}}, "rope_type"),
    ({"rope_scaling": {"type": "yarn"}}, "factor"),
    ({"rope_scaling": {"type": "yarn", "factor": float("nan")}}, "factor"),
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


def test_an_unknown_key_names_what_is_known_and_what_to_report():
    """Nobody is told to remove the key: a drafter that is read wrongly drafts badly, and nothing says why."""
    with pytest.raises(ConfigError) as caught:
        read(markov_head_kind="vanilla", target_layer_idx=[1])
    message = str(caught.value)
    assert "'markov_head_kind' = 'vanilla'" in message and "report this line" in message
    assert "remove" not in message and "\n" not in message
    with pytest.raises(ConfigError, match="like it are known: target_layer_ids"):
        read(target_layer_idx=[1])
    with pytest.raises(ConfigError) as caught:
        read(dflash_config={**INNER, "unheard_of": list(range(1000))})
    assert "'unheard_of'" in str(caught.value) and len(str(caught.value)) < 500


WRONG_TYPES = {
    "architectures": ["DFlashDraftModel", 3],
    "dflash_config": [[1], "x", 3],
    "target_layer_ids": [5, ["a"], [1.5], "1,2", {}],
    "mask_token_id": ["x", 1.5, -1, True],
    "num_target_layers": ["x", [3]],
    "hidden_size": ["32", 0, -1, 2.0, True, 2**31],
    "num_hidden_layers": [0, "5", 10**9],
    "block_size": [10**9, 2**70],
    "max_position_embeddings": [1e30, 2**40],
    "num_attention_heads": [0, [4]],
    "num_key_value_heads": [0, "8"],
    "head_dim": [0, "8"],
    "rms_norm_eps": ["x", True, 0, -1, float("nan")],
    "rope_theta": ["x", [1], 0, -1, float("inf")],
    "rope_parameters": [[1], "default"],
    "rope_scaling": ["yarn", 4.0],
    "sliding_windows": [4, ["a"] * 5, [True] * 5, [2**40] * 5],
    "layer_types": [3, "full_attention"],
    "draft_window_size": ["x", -1],
    "final_logit_softcapping": ["x", True, 0, -1],
    "output_multiplier": ["x", 0],
    "quantization": [4, "4bit"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in WRONG_TYPES for value in WRONG_TYPES[key]])
def test_wrong_types_name_the_key(key, value):
    inner = {k: v for k, v in BASE["dflash_config"].items() if k != key}
    with pytest.raises(ConfigError, match=key):
        read(**{"dflash_config": inner, key: value})


@pytest.mark.parametrize("key", sorted(set(BASE) - {"auto_map", "dflash_config"}))
@settings(max_examples=30)
@given(value=st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=3), st.lists, max_leaves=3))
def test_no_value_of_any_key_breaks_the_parser(key, value):
    """Whatever JSON a key holds, the file is read or refused; no other exception comes out."""
    try:
        read(**{key: value})
    except ConfigError as error:
        assert "config.json" in str(error) or "architecture" in str(error)


@pytest.mark.parametrize(
    ("layers", "taps", "ids"),
    [(36, 5, (1, 9, 17, 25, 33)), (28, 5, (1, 7, 13, 19, 25)), (48, 5, (1, 12, 23, 34, 45)), (10, 1, (5,))],
)
def test_default_target_layer_ids(layers, taps, ids):
    assert default_target_layer_ids(layers, taps) == ids
