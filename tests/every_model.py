"""A tiny random instance of every model file of mlx-lm, with weights that do not all look alike.

A config is filled from the fields that a file's arguments declare: what most files call the same is the same, OWN has what a file
wants for itself, and the rest keeps mlx-lm's default.
"""

import dataclasses
import importlib
import pkgutil

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm import models

from .families import COMMON, EXPERTS, FAMILIES, GATED_DELTA, GEMMA4, LATENT, tiny_model
from .helpers import sharpen

LAYERS = COMMON["num_hidden_layers"]
WINDOWS = ["sliding_attention", "full_attention"] * (LAYERS // 2)
USUAL = COMMON | {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "rope_scaling": None,
    "layer_types": WINDOWS,
    "sliding_window": 12,
    "sliding_window_pattern": 2,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "n_embd": 32,
    "n_layer": LAYERS,
    "n_layers": LAYERS,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "n_positions": 512,
    "n_ctx": 512,
    "d_model": 32,
    "rotary_dim": 8,
    "rotary_pct": 0.5,
    "rotary_emb_base": 1e4,
    "partial_rotary_factor": 0.5,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "moe_layer_freq": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "qk_nope_head_dim": 16,
    "conv_L_cache": 3,
    "conv_bias": False,
    "block_dim": 32,
    "block_ff_dim": 64,
    "block_multiple_of": 8,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "full_attn_idxs": [1, 3],
    "head_size": 16,
    "state_size": 16,
    "conv_kernel": 4,
    "time_step_rank": 4,
    "use_conv_bias": True,
    "expand": 2,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_d_ssm": 64,
    "mamba_proj_bias": False,
    "mamba_conv_bias": True,
    "ssm_state_size": 16,
    "n_groups": 1,
    "time_step_limit": (0.0, 1e9),
}
TEXT = dict(COMMON)
PER_LAYER_ROPE = {kind: {"rope_theta": 1e4, "rope_type": "default"} for kind in ("sliding_attention", "full_attention")}

# fmt: off
OWN = {
    "afm7": {"hidden_dim": 32, "num_layers": 4, "num_kv_reuse_layers": 2, "num_kv_heads": 2},
    "afmoe": {"num_dense_layers": 1},
    "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
    "bailing_moe_v3": {"num_attention_heads": 4, "layer_group_size": 2, "moe_shared_expert_intermediate_size": 32, "short_conv_kernel_size": 4},
    "cohere2": {"hidden_size": 64},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
    },
    "deepseek_v2": {"num_key_value_heads": 4, "rope_scaling": LATENT["rope_scaling"], "topk_method": "greedy"},
    "exaone": {"num_layers": LAYERS, "hidden_size": 64},
    "exaone4": {"sliding_window_pattern": "LG"},
    "exaone_moe": {"is_moe_layer": [False, True] * 2},
    "gemma3": {"text_config": {**TEXT, "model_type": "gemma3_text", "sliding_window": 12, "sliding_window_pattern": 2}, "vocab_size": 64},
    "gemma3n": {
        "text_config": {
            **TEXT, "model_type": "gemma3n_text", "intermediate_size": [64] * LAYERS, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 64,
            "sliding_window": 12, "rope_local_base_freq": 1e4, "final_logit_softcapping": 30.0, "layer_types": WINDOWS,
            "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "hidden_size_per_layer_input": 8, "altup_num_inputs": 2, "altup_coef_clip": 120.0,
            "altup_correct_scale": True, "altup_active_idx": 0, "laurel_rank": 8,
        }
    },
    "gemma4_text": COMMON | GEMMA4 | {"layer_types": [*WINDOWS, "sliding_attention", "full_attention"]},
    "glm4_moe": {"use_qk_norm": True},
    "glm_moe_dsa": {"index_head_dim": 16, "index_n_heads": 2, "index_topk": 8, "num_key_value_heads": 4, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 32, "embedding_multiplier": 2.0, "attention_multiplier": 0.25, "logits_scaling": 2.0, "residual_multiplier": 0.5},
    "hunyuan": {"moe_topk": 2, "num_shared_expert": 1, "moe_intermediate_size": [32] * LAYERS, "use_cla": True, "cla_share_factor": 2, "use_qk_norm": True, "use_mixed_mlp_moe": True, "rope_scaling": {"alpha": 10.0, "factor": 1.0, "type": "dynamic"}},
    "jamba": {"layers_block_type": ["mamba", "attention"] * 2, "attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2},
    "kimi_k3": {
        "text_config": {
            **TEXT, "num_key_value_heads": 4, "attn_res_block_size": 2, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
            "linear_attn_config": {"kda_layers": [1, 3], "full_attn_layers": [2, 4], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4, "gate_lower_bound": -5.0},
            "num_experts": 4, "num_experts_per_token": 2, "num_shared_experts": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1,
        }
    },
    "kimi_linear": {
        "num_key_value_heads": 4, "num_experts_per_token": 2, "first_k_dense_replace": 1, "model_max_length": 512,
        "linear_attn_config": {"kda_layers": [1, 3], "full_attn_layers": [2, 4], "num_heads": 4, "head_dim": 16, "short_conv_kernel_size": 4},
    },
    "kimi_vl": {"text_config": {**TEXT, **FAMILIES["deepseek_v3"], "model_type": "deepseek_v3", "topk_method": "noaux_tc"}},
    "lfm2-vl": {"text_config": {**USUAL, "model_type": "lfm2", "norm_eps": 1e-5}},
    "lille-130m": {"n_embd": 128, "n_kv_heads": 2, "block_size": 512},
    "llama4": {"text_config": {**TEXT, "model_type": "llama4_text", "attention_bias": False, "attention_chunk_size": 16, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 64, "num_experts_per_tok": 1, "num_local_experts": 4, "rope_scaling": None, "use_qk_norm": True}},
    "llama4_text": {"intermediate_size_mlp": 64, "no_rope_layers": [1, 1, 1, 0], "use_qk_norm": True},
    "longcat_flash": {"num_layers": 2, "attention_method": "MLA", "zero_expert_type": "identity", "ffn_hidden_size": 64, "moe_topk": 2, "expert_ffn_hidden_size": 32, "zero_expert_num": 2, "mla_scale_q_lora": True, "mla_scale_kv_lora": True},
    "longcat_flash_ngram": {"num_layers": 2, "attention_method": "MLA", "zero_expert_type": "identity", "ffn_hidden_size": 64, "moe_topk": 2, "expert_ffn_hidden_size": 32, "zero_expert_num": 2, "mla_scale_q_lora": True, "mla_scale_kv_lora": True, "emb_neighbor_num": 2, "emb_split_num": 2, "ngram_vocab_size_ratio": 4},
    "mellum": {"rope_parameters": PER_LAYER_ROPE},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [1, 0] * 2, "moe_layer_freq": [0, 1, 1, 1], "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
        "sliding_window_size": 12, "layernorm_epsilon": 1e-5, "swa_rope_theta": 1e4, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2,
        "swa_head_dim": 16, "swa_v_head_dim": 16, "attention_value_scale": 0.7,
    },
    "minicpm3": {"dim_model_base": 32, "scale_depth": 1.4, "scale_emb": 2.0, "num_key_value_heads": 4, "rope_scaling": {"type": "longrope", "original_max_position_embeddings": 64, "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}},
    "minimax_m3_vl": {"text_config": {**TEXT, "dense_intermediate_size": 64, "shared_intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "rotary_dim": 8, "mlp_layer_types": ["dense", "sparse"] * 2, "layer_types": ["full_attention", "sparse"] * 2, "index_n_heads": 2, "index_head_dim": 16, "index_block_size": 4, "index_topk_blocks": 3}},
    "ministral3": {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64}},
    "mistral3": {"text_config": {**TEXT, "model_type": "ministral3", "layer_types": WINDOWS, "sliding_window": 12, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64}}},
    "mistral4": {"num_key_value_heads": 4, "head_dim": 24, "qk_head_dim": 24, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default", "type": "default", "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 64}},
    "nemotron-nas": {"block_configs": [{"attention": {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": False}, "ffn": {"ffn_mult": 2.0, "no_op": False, "replace_with_linear": False}}] * LAYERS},
    "nemotron_h": {"hybrid_override_pattern": list("M*M-"), "mamba_num_heads": 4, "mamba_head_dim": 16, "mamba_hidden_act": "silu", "use_bias": False, "mlp_hidden_act": "relu2", "use_mamba_kernels": False},
    "olmo_hybrid": {**GATED_DELTA, "linear_allow_neg_eigval": True, "layer_types": ["linear_attention", "full_attention"] * 2},
    "openelm": {"num_transformer_layers": 4, "model_dim": 32, "ffn_dim_divisor": 8, "num_query_heads": [4] * 4, "num_kv_heads": [2] * 4, "ffn_multipliers": [1.0] * 4},
    "phi": {"num_key_value_heads": 4, "hidden_size": 64},
    "phixtral": {"num_vocab": 64, "model_dim": 32, "num_layers": LAYERS},
    "pixtral": {"text_config": {**TEXT, "model_type": "llama"}},
    "plamo": {"n_shared_head": 2},
    "plamo2": {"hidden_size_per_head": 16, "attention_window_size": 512, "full_attention_idx": [1, 3], "mamba_num_heads": 4, "mamba_d_state": 64},
    "qwen": {"kv_channels": 8},
    "qwen2_vl": {"text_config": {**TEXT, "model_type": "qwen2", "rope_scaling": None}},
    "qwen3_moe": EXPERTS,
    "Klear": {**EXPERTS, "attention_bias": False},
    "qwen3_next": {**GATED_DELTA, **EXPERTS},
    "qwen3_vl": {"text_config": {**TEXT, "model_type": "qwen3"}},
    "qwen3_vl_moe": {"text_config": {**TEXT, **EXPERTS, "model_type": "qwen3_moe"}},
    "recurrent_gemma": {"conv1d_width": 4, "logits_soft_cap": 30.0, "attention_window_size": 12, "block_types": ["recurrent", "attention"] * 2, "num_key_value_heads": 1, "head_dim": 8},
    "spark2_5": {"rope_parameters": PER_LAYER_ROPE, "hidden_act": "gelu"},
    "step3p5": {"num_attention_groups": 2, "moe_num_experts": 4, "moe_top_k": 2, "share_expert_dim": 32, "moe_layers_enum": "1,2,3"},
}
# fmt: on
"""What a file's config has beside USUAL."""

NOT_MODELS = {
    "bitlinear_layers",
    "rope_utils",
    "switch_layers",
    "gated_delta",
    "activations",
    "base",
    "cache",
    "mla",
    "pipeline",
    "ssm",
}
NOT_HERE = {
    "bitnet": "its layers are Metal kernels, so no instance runs on a CPU",
    "muse_spark": "its layers are Metal kernels, so no instance runs on a CPU",
    "olmo": "mlx-lm's file needs the package ai2-olmo",
    "phi3small": "mlx-lm's own forward of a tiny instance ends the process on MLX's CPU backend",
    "prism_hadamard_qwen35": "its weights exist packed only, so there is no random instance",
}
"""Files without an instance here, with the reason."""
MOST_PARAMETERS = 6e6


def model_files():
    """The names of mlx-lm's model files."""
    return sorted(info.name for info in pkgutil.iter_modules(models.__path__) if info.name not in NOT_MODELS)


def _begun(parameter):
    """Matrices that mlx-lm makes as zeros, because a checkpoint brings them, as random ones."""
    is_blank = parameter.ndim > 1 and not mx.any(parameter)
    return mx.random.normal(parameter.shape) if is_blank else parameter


def every_model(name) -> nn.Module:
    """A tiny random instance; raises whatever the file raises at what it cannot build here."""
    listed = next((config for config in FAMILIES.values() if config["model_type"] == name), None)
    if listed is not None and name not in OWN:
        return tiny_model(listed)
    module = importlib.import_module(f"mlx_lm.models.{name}")
    known = USUAL | {"model_type": name} | OWN.get(name, {})
    config = {}
    for field in dataclasses.fields(module.ModelArgs):
        if field.name in known:
            config[field.name] = known[field.name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            config[field.name] = {int: 4, float: 1.0, bool: False, str: "x"}.get(field.type)
    mx.random.seed(0)
    arguments = (
        module.ModelArgs.from_dict(config) if hasattr(module.ModelArgs, "from_dict") else module.ModelArgs(**config)
    )
    model = module.Model(arguments)
    parameters = sum(x.size for _, x in tree_flatten(model.parameters()))
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"{parameters / 1e6:.0f} M parameters")
    sharpen(model)
    model.update(tree_map(_begun, model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model


def mute_model() -> nn.Module:
    """A model of an unlisted family that says the same whatever it reads, so that no test can tell trees apart."""
    model = every_model("qwen2")
    model.model.norm.weight = mx.zeros_like(model.model.norm.weight)
    return model
