"""Small random models: real architectures of mlx-lm, real tokenizer, a fraction of a second each."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.models import llama, qwen3, qwen3_moe

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import DenseTarget, make_target

from .training.tiny import MASK, make_tokenizer

SHARPNESS = 4.0
"""Random weights are scaled up, so that argmax and samples depend on the context."""


def small_target(
    family="qwen3", *, tied=True, kv_heads=2, rope_scaling=None, bits=None, layers=3, vocab=64, hidden=32, seed=0
) -> DenseTarget:
    common = {
        "model_type": family,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * hidden,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": 1e-6,
        "vocab_size": vocab,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_theta": 1e4,
        "rope_scaling": rope_scaling,
        "tie_word_embeddings": tied,
    }
    moe = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": hidden,
        "norm_topk_prob": True,
    }
    module = {"qwen3": qwen3, "qwen3_moe": qwen3_moe, "llama": llama}[family]
    mx.random.seed(seed)
    model = module.Model(module.ModelArgs(**common, **(moe if family == "qwen3_moe" else {})))
    sharpen(model)
    if bits is not None:
        nn.quantize(model, group_size=32, bits=bits)
    mx.eval(model.parameters())
    target = make_target(model)
    assert isinstance(target, DenseTarget)
    return target


def small_drafter(target: DenseTarget, *, layers=2, block_size=8, taps=(0, 1, 2), seed=1, **config) -> DFlashDrafter:
    values = {
        "architectures": ["DFlashDraftModel"],
        "hidden_size": target.hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 2 * target.hidden_size,
        "vocab_size": target.vocab_size,
        "rope_theta": 1e4,
        "block_size": block_size,
        "dflash_config": {"target_layer_ids": list(taps), "mask_token_id": MASK},
    }
    mx.random.seed(seed)
    drafter = DFlashDrafter(DrafterConfig.from_dict(values | config), len(taps))
    sharpen(drafter)
    mx.eval(drafter.parameters())
    return drafter


def small_pair(family="qwen3", *, seed=0, drafter=True, **options) -> Pair:
    target = small_target(family, seed=seed, **options)
    return Pair(target, small_drafter(target) if drafter else None, make_tokenizer())


def sharpen(model: nn.Module) -> None:
    model.update(tree_map(lambda p: p * SHARPNESS if p.ndim > 1 else p, model.parameters()))
