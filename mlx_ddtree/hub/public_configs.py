"""What the sizes of public targets depend on, as their config.json files on the Hub say.

`hub/size.py` computes parameters and bytes from them.  Written without access to the Hub: the totals agree with the
published counts within 1 % for six models, with their rounded figures or names within 6 % for the others.
"""

from typing import Any

_COMMON: dict[str, Any] = {"rms_norm_eps": 1e-6, "rope_theta": 1e7, "max_position_embeddings": 262144}
_QWEN3 = _COMMON | {"model_type": "qwen3", "head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936}
_DELTA = {
    "full_attention_interval": 4,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
_EXPERTS = {"num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}


def _qwen3_5(layers: int, hidden: int, heads: int, kv_heads: int, **other: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    shared = {"num_key_value_heads": kv_heads, "head_dim": 256, "vocab_size": 248320, "tie_word_embeddings": False}
    kind = "qwen3_5_moe" if "num_experts" in other else "qwen3_5"
    experts = _EXPERTS | {"intermediate_size": 0} if "num_experts" in other else {}
    text = _COMMON | _DELTA | sizes | shared | experts | {"model_type": f"{kind}_text"} | other
    return {"model_type": kind, "text_config": text}


_27B = _qwen3_5(64, 5120, 24, 4, intermediate_size=17408, linear_num_value_heads=48)
_35B = _qwen3_5(40, 2048, 16, 2, num_experts=256, moe_intermediate_size=512, shared_expert_intermediate_size=512)
_GPT_OSS = _COMMON | {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "vocab_size": 201088,
}

PUBLIC_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen3-4B": _QWEN3
    | {
        "num_hidden_layers": 36,
        "hidden_size": 2560,
        "num_attention_heads": 32,
        "intermediate_size": 9728,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-8B": _QWEN3
    | {
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "intermediate_size": 12288,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-14B": _QWEN3
    | {
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "num_attention_heads": 40,
        "intermediate_size": 17408,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-Coder-30B-A3B-Instruct": _QWEN3
    | _EXPERTS
    | {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 6144,
        "num_experts": 128,
        "moe_intermediate_size": 768,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-Coder-Next": _COMMON
    | _DELTA
    | _EXPERTS
    | {
        "model_type": "qwen3_next",
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "intermediate_size": 5120,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "partial_rotary_factor": 0.25,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3.5-4B": _qwen3_5(32, 2560, 16, 4, intermediate_size=9216, tie_word_embeddings=True),
    "Qwen/Qwen3.5-9B": _qwen3_5(32, 4096, 16, 4, intermediate_size=12288),
    "Qwen/Qwen3.5-27B": _27B,
    "Qwen/Qwen3.5-35B-A3B": _35B,
    "Qwen/Qwen3.5-122B-A10B": _qwen3_5(
        48,
        3072,
        32,
        2,
        num_experts=256,
        moe_intermediate_size=1024,
        shared_expert_intermediate_size=1024,
        linear_num_value_heads=64,
    ),
    "Qwen/Qwen3.6-27B": _27B,
    "Qwen/Qwen3.6-35B-A3B": _35B,
    "Qwen/Qwen3.8-27B": _27B,
    "meta-llama/Llama-3.1-8B-Instruct": _COMMON
    | {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "openai/gpt-oss-20b": _GPT_OSS | {"num_hidden_layers": 24, "num_local_experts": 32},
    "openai/gpt-oss-120b": _GPT_OSS | {"num_hidden_layers": 36, "num_local_experts": 128},
    "moonshotai/Kimi-K2.5": {
        "model_type": "kimi_k25",
        "text_config": _COMMON
        | {
            "model_type": "deepseek_v3",
            "num_hidden_layers": 61,
            "hidden_size": 7168,
            "num_attention_heads": 64,
            "num_key_value_heads": 64,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "vocab_size": 163840,
            "n_routed_experts": 384,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "moe_layer_freq": 1,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 512,
            "q_lora_rank": 1536,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "routed_scaling_factor": 2.827,
        },
    },
}
