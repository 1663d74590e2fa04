"""A GGUF file of a llama model to a folder that mlx-lm loads, with the file's own numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_ddtree.errors import WeightsError, one_line
from mlx_ddtree.hub.gguf_tokenizer import write_tokenizer

GROUP = 32
"""Weights that share a scale and a bias in GGUF's Q4_0, Q4_1 and Q8_0, which MLX reads as they are."""
LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(\w+)")
_ROTATED = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}


def convert_gguf(file: Path, folder: Path, *, quantised: bool) -> None:
    """Write the model of `file` to the empty `folder` in mlx-lm's layout.

    quantised: keep the file's 4 and 8 bits; else its numbers in float32, which MLX's CPU backend multiplies faster.

    Raises WeightsError where the file cannot be read or is not of a llama model.
    """
    tensors, facts = read_gguf(file)
    weights = rename(tensors, facts)
    bits = quantised_bits(weights)
    if not quantised:
        weights = dequantise(weights, bits)
        bits = {}
    config = make_config(facts, bits, tied="lm_head.weight" not in weights)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_tokenizer(facts, folder)


def read_gguf(file: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """The tensors of a llama model, quantised ones in MLX's form, and its facts: texts, numbers, lists, arrays."""
    try:
        loaded: Any = mx.load(str(file), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read as a GGUF file: {one_line(error)}") from error
    tensors, facts = loaded
    architecture = facts.get("general.architecture")
    if architecture != "llama":
        raise WeightsError(f"{file} holds a {architecture!r} model; llama models are read here")
    numbers = {name: fact.item() for name, fact in facts.items() if isinstance(fact, mx.array) and fact.ndim == 0}
    return tensors, facts | numbers


def rename(tensors: Mapping[str, mx.array], facts: Mapping[str, Any]) -> dict[str, mx.array]:
    """The tensors by mlx-lm's names, with the rows of queries and keys in its order."""
    weights = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        public = None if found is None else (OUTSIDE if found[1] is None else LAYERS).get(found[2])
        if found is None or public is None:
            raise WeightsError(f"the GGUF file has a tensor {name!r} that a llama model does not have")
        heads = _ROTATED.get(found[2])
        prefix = "" if found[1] is None else f"model.layers.{found[1]}."
        whole_name = f"{prefix}{public}.{found[3]}"
        weights[whole_name] = tensor if heads is None else halves_apart(tensor, facts[heads])
    return weights


def halves_apart(rows: mx.array, heads: int) -> mx.array:
    """(heads * d, ...) with the two channels of a rotation side by side -> half a head apart, as mlx-lm rotates them.

    Rows are moved whole, so quantised ones stay as they are.
    """
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def quantised_bits(weights: Mapping[str, mx.array]) -> dict[str, int]:
    """Bits of a weight, by the name of the module whose weights are quantised."""
    bits = {}
    for name, scales in weights.items():
        module = name.removesuffix(".scales")
        if module != name:
            packed = weights[f"{module}.weight"]
            bits[module] = 32 * packed.shape[-1] // (GROUP * scales.shape[-1])
    return bits


def dequantise(weights: Mapping[str, mx.array], bits: Mapping[str, int]) -> dict[str, mx.array]:
    """All weights in float32; scales are widened first, so that the products are not rounded."""
    plain = {}
    for name, tensor in weights.items():
        module, _, part = name.rpartition(".")
        if module not in bits:
            plain[name] = tensor.astype(mx.float32)
        elif part == "weight":
            scales, biases = (weights[f"{module}.{each}"].astype(mx.float32) for each in ("scales", "biases"))
            plain[name] = mx.dequantize(tensor, scales, biases, GROUP, bits[module])
    return plain


def make_config(facts: Mapping[str, Any], bits: Mapping[str, int], tied: bool) -> dict[str, Any]:
    """config.json.

    facts: the GGUF file's.  bits: by module, see `quantised_bits`.  tied: whether the embedding is the head as well.
    """
    of_llama = {name.removeprefix("llama."): fact for name, fact in facts.items() if name.startswith("llama.")}
    end = facts["tokenizer.ggml.eos_token_id"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": of_llama["embedding_length"],
        "num_hidden_layers": of_llama["block_count"],
        "intermediate_size": of_llama["feed_forward_length"],
        "num_attention_heads": of_llama["attention.head_count"],
        "num_key_value_heads": of_llama["attention.head_count_kv"],
        "head_dim": of_llama["rope.dimension_count"],
        "rms_norm_eps": round(of_llama["attention.layer_norm_rms_epsilon"], 9),
        "max_position_embeddings": of_llama["context_length"],
        "rope_theta": of_llama["rope.freq_base"],
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": end,
        "pad_token_id": facts.get("tokenizer.ggml.padding_token_id", end),
    }
    if bits:
        usual = max(set(bits.values()), key=list(bits.values()).count)
        others = {name: {"group_size": GROUP, "bits": b} for name, b in bits.items() if b != usual}
        config["quantization"] = {"group_size": GROUP, "bits": usual} | others
    return config
