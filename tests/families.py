"""A small random instance of any mlx-lm model type, made as `mlx_lm.load` makes the real ones."""

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import _get_classes

from mlx_ddtree.pair import Pair
from mlx_ddtree.target import make_target

from .helpers import sharpen, small_drafter
from .training.tiny import make_tokenizer

COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "vocab_size": 64,
    "max_position_embeddings": 512,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
}
GATED_DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 2,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "norm_topk_prob": True,
}
LATENT = {
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "qk_nope_head_dim": 16,
    "num_key_value_heads": 4,
    "rope_scaling": {
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "beta_fast": 32,
        "beta_slow": 1,
    },
}
GEMMA4 = {
    "model_type": "gemma4_text",
    "global_head_dim": 32,
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 2,
    "num_hidden_layers": 6,
    "sliding_window": 12,
    "sliding_window_pattern": 2,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

FAMILIES = {
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "qwen3, one kv head": {"model_type": "qwen3", "num_key_value_heads": 1},
    "qwen3, yarn": {"model_type": "qwen3", "rope_scaling": YARN},
    "qwen3_moe": {"model_type": "qwen3_moe", **EXPERTS},
    "llama, no groups": {"model_type": "llama", "num_key_value_heads": 4},
    "llama, llama3 rope": {"model_type": "llama", "rope_scaling": LLAMA3_ROPE},
    "llama, windows": {
        "model_type": "llama",
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 12,
    },
    "qwen3_5": {"model_type": "qwen3_5", "text_config": {**COMMON, **GATED_DELTA, "model_type": "qwen3_5_text"}},
    "qwen3_5_moe": {
        "model_type": "qwen3_5_moe",
        "text_config": {**COMMON, **GATED_DELTA, **EXPERTS, "model_type": "qwen3_5_moe_text"},
    },
    "qwen3_next": {"model_type": "qwen3_next", **GATED_DELTA, **EXPERTS, "partial_rotary_factor": 0.25},
    "gpt_oss": {
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 12,
        "rope_scaling": YARN | {"rope_type": "yarn", "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
    },
    "gemma4, shared keys": {"model_type": "gemma4", "text_config": {**COMMON, **GEMMA4}, "vocab_size": 64},
    "gemma4, experts": {
        "model_type": "gemma4",
        "vocab_size": 64,
        "text_config": {
            **COMMON,
            **GEMMA4,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
    },
    "deepseek_v3": LATENT,
    "kimi_k25": {"model_type": "kimi_k25", "text_config": {**COMMON, **LATENT}},
    "minimax": {
        "model_type": "minimax_m2",  # as the public checkpoints say; mlx-lm's file is minimax
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 32,
        "rotary_dim": 8,
    },
}
"""config.json by name; what a family does not give is COMMON's."""


def tiny_model(config, *, seed=0, bits=None, mode="affine") -> nn.Module:
    """A random model of any of mlx-lm's types from its config.json."""
    config = COMMON | config
    model_class, args_class = _get_classes(config)
    mx.random.seed(seed)
    model = model_class(args_class.from_dict(config))
    sharpen(model)
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits, mode=mode, class_predicate=divisible)
    mx.eval(model.parameters())
    return model


def divisible(_, module):
    """Whether mlx-lm could quantise this module in groups of 32."""
    return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0


def tiny_target(name, *, head_dim=None, vocab=None, **options):
    """The adapter of one of FAMILIES."""
    changes = {key: value for key, value in (("head_dim", head_dim), ("vocab_size", vocab)) if value is not None}
    config = FAMILIES[name] | changes
    if "text_config" in config:
        config["text_config"] = config["text_config"] | changes
    return make_target(tiny_model(config, **options))


def tiny_pair(name, **options):
    """With a random drafter, and without an end token, so that texts have their full length."""
    target = tiny_target(name, **options)
    pair = Pair(target, small_drafter(target), make_tokenizer())
    pair.tokenizer.eos_token_ids.clear()
    return pair
