"""Small random models: real architectures of mlx-lm, real tokenizer, a fraction of a second each."""

import json
from functools import cache
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import llama, qwen3, qwen3_moe

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import TreeTarget, make_target
from mlx_ddtree.tuning.measure import profile_of

from .training.tiny import EOS, MASK, make_tokenizer

SHARPNESS = 4.0
"""Random weights are scaled up, so that argmax and samples depend on the context."""


def interrupting(at):
    """(callback, calls): notes how much of a prompt is done, and is Ctrl-C in the call behind the first `at`."""
    calls = []

    def interrupt(done, total):
        calls.append(done)
        if len(calls) > at:
            raise KeyboardInterrupt

    return interrupt, calls


def small_target(
    family="qwen3", *, tied=True, kv_heads=2, rope_scaling=None, bits=None, layers=3, vocab=64, hidden=32, seed=0
) -> TreeTarget:
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
    assert isinstance(target, TreeTarget)
    return target


def small_drafter(target: TreeTarget, *, layers=2, block_size=8, taps=(0, 1, 2), seed=1, **config) -> DFlashDrafter:
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


@cache
def any_profile(drafter=True):
    """A profile for pairs of tests to which it does not matter what rounds cost."""
    return profile_of(small_pair(drafter=drafter))


def sharpen(model: nn.Module) -> None:
    model.update(tree_map(lambda p: p * SHARPNESS if p.ndim > 1 else p, model.parameters()))


def save_target(folder: Path, target: TreeTarget, **config: object) -> None:
    """A target's folder as it lies on the Hub: config.json, bf16 weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in vars(target.args).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(values | {"eos_token_id": EOS} | config))
    weights = dict(tree_flatten(target.model.parameters()))
    stored = {k: v.astype(mx.bfloat16) if mx.issubdtype(v.dtype, mx.floating) else v for k, v in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), stored, metadata={"format": "pt"})
    make_tokenizer()._tokenizer.save_pretrained(folder)


def save_drafter(
    folder: Path, drafter: DFlashDrafter, weights: dict[str, mx.array] | None = None, *, shards=1, **config: object
) -> dict[str, mx.array]:
    """A drafter's folder in the layout of the public ones; config replaces keys of config.json.

    Returns the tensors that were saved: the drafter's own unless others are given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(public_config(drafter) | config))
    weights = dict(tree_flatten(drafter.parameters())) if weights is None else weights
    for i in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        mx.save_safetensors(str(folder / file), dict(list(weights.items())[i::shards]), metadata={"format": "pt"})
    return weights


def public_config(drafter: DFlashDrafter) -> dict[str, object]:
    """config.json as z-lab's drafters have it."""
    config = drafter.config
    return {
        "architectures": ["DFlashDraftModel"],
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
        "block_size": config.block_size,
        "dflash_config": {"mask_token_id": config.mask_token_id, "target_layer_ids": config.target_layer_ids},
        "dtype": "bfloat16",
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_types": ["full_attention"] * config.num_hidden_layers,
        "max_position_embeddings": config.max_position_embeddings,
        "max_window_layers": config.num_hidden_layers,
        "model_type": "qwen3",
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "transformers_version": "4.57.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    }
