"""Tensors of the public layouts under the names that the networks here have, and what of them is left out."""

from __future__ import annotations

import mlx.core as mx

from mlx_ddtree.drafter.config import DrafterConfig

BEGINNINGS = {
    "encoder.fc.": "fc.",
    "encoder.output_norm_enc.": "hidden_norm.",
    "context_norm.": "hidden_norm.",
    "midlayer.": "layers.0.",
    "logit_head.": "",
    "prefix_gru.weight_ih_l0": "domino.input_gates.weight",
    "prefix_gru.weight_hh_l0": "domino.state_gates.weight",
    "embed_proj.0.": "domino.squeeze.",
    "embed_proj.2.": "domino.widen.",
}
"""Beginnings of tensor names in Meta's, vLLM's, DFlare's, DeepSpec's and Domino's layouts, and ours."""
OF_NO_USE = ("t2d", "verifier_lm_head.weight", "verifier_norm.weight", "rotary_emb.inv_freq")
"""Stored beside some drafters, and used in training only or computed anew."""


def our_name(name: str) -> str:
    """A tensor's name here, whichever of the public layouts it comes from."""
    for theirs, ours in BEGINNINGS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"{name}.weight" if name.endswith("_codebook") else name


def public_name(name: str) -> str:
    """The name under which published DFlash 2 drafters store a tensor."""
    return name.removesuffix(".weight") if name.endswith("_codebook.weight") else name


def split_fused(
    config: DrafterConfig, weights: dict[str, mx.array], files: dict[str, str]
) -> tuple[dict[str, mx.array], dict[str, str]]:
    """Tensors that stand for several (`qkv_proj`, `gate_up_proj`), taken apart; all others as they are.

    files: the name of the file that each tensor stands in.
    """
    q_rows = config.num_attention_heads * config.head_dim
    kv_rows = config.num_key_value_heads * config.head_dim
    parts = {
        "qkv_proj": (("q_proj", "k_proj", "v_proj"), [q_rows, q_rows + kv_rows]),
        "gate_up_proj": (("gate_proj", "up_proj"), [config.intermediate_size]),
    }
    apart = {}
    places = {}
    for name, value in weights.items():
        module = name.split(".")[-2] if "." in name else ""
        names, edges = parts.get(module, ((module,), []))
        if edges and len(value) <= edges[-1]:  # not what it is called
            names, edges = (module,), []
        for part, rows in zip(names, mx.split(value, edges) if edges else [value], strict=True):
            own = name.replace(f".{module}.", f".{part}.")
            apart[own] = rows
            places[own] = files[name]
    return apart, places
