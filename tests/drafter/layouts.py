"""The public layouts of drafters, small: config.json as published (their copied keys too), tensors under public names.

What a layout means is said a second time, in words of the formulas (`Facts`), so that neither the parser nor the networks
are asked what is right.  Sources: the repositories and model cards that docs/drafters.md names.
"""

import json
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, LAYERS, VOCAB, RANK = 32, 4, 2, 16, 64, 2, 64, 6
TAPS = (0, 1, 2)
MASK = 1
THETA, EPS = 1e4, 1e-5


@dataclass(frozen=True)
class Facts:
    """What a layout computes.  rows: a block's; start: the row that predicts first."""

    rows: int = 8
    start: int = 1
    windows: tuple = (None,) * LAYERS
    causal: tuple = (False,) * LAYERS
    theta: float = THETA
    interleaved: bool = False
    rope_dims: int = HEAD_DIM
    norm_offset: float = 0.0
    value_scale: float = 1.0
    embed_scale: float = 1.0
    softcap: float | None = None
    gemma: bool = False
    kv_heads: int = KV_HEADS
    own_embedding: bool = False
    own_head: bool = False
    draft_vocab: int | None = None
    head: str | None = None
    uncorrected: int = 0
    confidence: bool = False


@dataclass(frozen=True)
class Layout:
    config: dict
    tensors: dict
    facts: Facts = field(default_factory=Facts)


def linear(*names, out, into, bias=False):
    shapes = {f"{name}.weight": (out, into) for name in names}
    return shapes | ({f"{name}.bias": (out,) for name in names} if bias else {})


def norms(*names, size=HIDDEN):
    return {f"{name}.weight": (size,) for name in names}


def layer(i, *, q_out=HEADS * HEAD_DIM, kv_out=KV_HEADS * HEAD_DIM):
    at, mlp = f"layers.{i}.self_attn", f"layers.{i}.mlp"
    return {
        **linear(f"{at}.q_proj", out=q_out, into=HIDDEN),
        **linear(f"{at}.k_proj", f"{at}.v_proj", out=kv_out, into=HIDDEN),
        **linear(f"{at}.o_proj", out=HIDDEN, into=HEADS * HEAD_DIM),
        **norms(f"{at}.q_norm", f"{at}.k_norm", size=HEAD_DIM),
        **linear(f"{mlp}.gate_proj", f"{mlp}.up_proj", out=MLP, into=HIDDEN),
        **linear(f"{mlp}.down_proj", out=HIDDEN, into=MLP),
        **norms(f"layers.{i}.input_layernorm", f"layers.{i}.post_attention_layernorm"),
    }


def layers(**shapes):
    return {name: shape for i in range(LAYERS) for name, shape in layer(i, **shapes).items()}


FC = {"fc.weight": (HIDDEN, len(TAPS) * HIDDEN), "hidden_norm.weight": (HIDDEN,), "norm.weight": (HIDDEN,)}
V1 = layers() | FC
EMBEDDING, HEAD = {"embed_tokens.weight": (VOCAB, HIDDEN)}, {"lm_head.weight": (VOCAB, HIDDEN)}


def markov(kind="vanilla", out=VOCAB):
    more = {}
    if kind == "gated":
        more = linear("markov_head.gate_proj", out=RANK, into=HIDDEN + RANK, bias=True)
    if kind == "rnn":
        more = linear("markov_head.joint_proj", out=3 * RANK, into=2 * RANK + HIDDEN, bias=True)
    return {"markov_head.markov_w1.weight": (VOCAB, RANK), "markov_head.markov_w2.weight": (out, RANK)} | more


CONFIDENCE = linear("confidence_head.proj", out=1, into=HIDDEN + RANK, bias=True)

QWEN3 = {
    "model_type": "qwen3", "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
    "rms_norm_eps": EPS, "max_position_embeddings": 512, "hidden_act": "silu", "attention_bias": False,
    "attention_dropout": 0.0, "dtype": "bfloat16", "initializer_range": 0.02, "tie_word_embeddings": False,
    "layer_types": ["full_attention"] * LAYERS, "sliding_window": None, "use_sliding_window": False,
    "max_window_layers": LAYERS, "use_cache": True, "transformers_version": "4.57.1",
}  # fmt: skip
THETA_ABOVE = {"rope_theta": THETA, "rope_scaling": None}
INNER = {"mask_token_id": MASK, "target_layer_ids": list(TAPS)}
DEEPSPEC = QWEN3 | THETA_ABOVE | INNER | {
    "architectures": ["Qwen3DSparkModel"], "block_size": 7, "num_target_layers": 3, "num_anchors": 512,
    "markov_rank": RANK, "markov_head_type": "vanilla", "enable_confidence_head": True,
    "confidence_head_with_markov": True,
}  # fmt: skip
COPIED = {  # a hybrid target's keys, as DeepSpec's trainer copies them
    "partial_rotary_factor": 0.25, "attn_output_gate": True, "full_attention_interval": 4, "linear_num_key_heads": 16,
    "mtp_num_hidden_layers": 1, "text_config": {"model_type": "qwen3_5_text"},
    "rope_parameters": {"rope_theta": THETA, "rope_type": "default", "partial_rotary_factor": 0.25,
                        "mrope_section": [11, 11, 10], "mrope_interleaved": True},
}  # fmt: skip
SPECFORGE_INNER = INNER | {
    "projector_type": "dspark", "attention_mode": "gqa", "markov_rank": RANK, "markov_head_type": "vanilla",
    "confidence_head_alpha": 1.0, "enable_confidence_head": True, "confidence_head_with_markov": True,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": THETA, "factor": 1.0, "original_max_position_embeddings": 512}
SPECULATORS = {
    "architectures": ["DFlashSpeculator"], "speculators_model_type": "dflash", "speculators_version": "0.7.0",
    "transformer_layer_config": QWEN3 | {"rope_parameters": {"rope_type": "default", "rope_theta": THETA}},
    "speculators_config": {
        "algorithm": "dflash", "default_proposal_method": "greedy",
        "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": 7}],
        "verifier": {"name_or_path": "Qwen/Qwen3-8B", "architectures": ["Qwen3ForCausalLM"]},
    },
    "draft_vocab_size": 40, "block_size": 8, "aux_hidden_state_layer_ids": list(TAPS), "mask_token_id": MASK,
    "target_hidden_size": None, "sliding_window_non_causal": False, "sample_from_anchor": False, "dtype": "bfloat16",
}  # fmt: skip
REDUCED = EMBEDDING | {"lm_head.weight": (40, HIDDEN), "d2t": (40,), "t2d": (VOCAB,)}
NVIDIA = QWEN3 | INNER | {
    "architectures": ["Qwen3DSparkModel"], "attention_sink_bias": True, "block_size": 8, "rope_theta": THETA,
    "dflash_config": INNER | {"attention_sink_bias": True, "causal": True, "swa_window_size": 11, "use_swa": True,
                              "sample_from_anchor": False},
    "dflash_query_causal": True, "draft_vocab_size": None, "dspark_fixup_head_type": "markov",
    "dspark_markov_rank": RANK, "markov_rank": RANK, "markov_head_type": "vanilla", "dspark_bonus_anchor": True,
    "eagle_aux_hidden_state_layer_ids": [1, 2, 3], "has_embed_tokens": True, "has_lm_head": False, "num_aux_layers": 3,
    "pard_token": MASK, "sample_from_anchor": False, "sliding_window": 11, "train_embed_tokens": False,
    "layer_types": ["sliding_attention"] * LAYERS,
}  # fmt: skip
GEMMA = {
    "architectures": ["Gemma4DSparkModel"], "model_type": "gemma4_text", "attention_bias": False,
    "attention_k_eq_v": True, "block_size": 7, "confidence_head_with_markov": True, "enable_confidence_head": True,
    "enable_moe_block": False, "final_logit_softcapping": 30.0, "global_head_dim": HEAD_DIM, "head_dim": 8,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size": HIDDEN, "hidden_size_per_layer_input": 0,
    "intermediate_size": MLP, "layer_types": ["full_attention"] * LAYERS, "markov_head_type": "vanilla",
    "markov_rank": RANK, "mask_token_id": MASK, "max_position_embeddings": 512, "num_anchors": 512,
    "num_attention_heads": HEADS, "num_global_key_value_heads": 1, "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS, "num_kv_shared_layers": 0, "num_target_layers": 3, "rms_norm_eps": EPS,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": THETA, "partial_rotary_factor": 0.25},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
    },
    "sliding_window": 1024, "target_layer_ids": list(TAPS), "target_model_type": "gemma4",
    "target_text_model_type": "gemma4_text", "tie_word_embeddings": False, "use_double_wide_mlp": False,
    "vocab_size": VOCAB,
}  # fmt: skip
GEMMA_TENSORS = {
    name: shape
    for name, shape in (layers(kv_out=HEAD_DIM) | FC).items() if "v_proj" not in name
} | {
    f"layers.{i}.{name}": shape
    for i in range(LAYERS)
    for name, shape in {
        "pre_feedforward_layernorm.weight": (HIDDEN,), "post_feedforward_layernorm.weight": (HIDDEN,),
        "layer_scalar": (1,),
    }.items()
}  # fmt: skip
DOMINO_INNER = INNER | {
    "projector_type": "domino",
    "pure_draft_prefix_len": 1,
    "emb_dim": 5,
    "gru_hidden_dim": 7,
    "shift_label": True,
}
DOMINO_TENSORS = {
    "prefix_gru.weight_ih_l0": (21, HIDDEN), "prefix_gru.weight_hh_l0": (21, 7),
    "embed_proj.0.weight": (5, HIDDEN + 7), "embed_proj.2.weight": (VOCAB, 5),
}  # fmt: skip
LAGUNA_TENSORS = {
    name: shape for name, shape in V1.items() if not any(f"{p}_proj" in name for p in "qkv")
} | {
    f"layers.{i}.self_attn.{name}.weight": shape
    for i in range(LAYERS)
    for name, shape in {
        "qkv_proj": ((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN), "g_proj": (HEADS, HIDDEN),
    }.items()
} | norms(*(f"aux_hidden_norms.{t}" for t in range(len(TAPS))))  # fmt: skip
DFLARE_TENSORS = {name: shape for name, shape in V1.items() if name != "fc.weight"} | {
    "layer_fusion_weights": (LAYERS, len(TAPS)),
} | {
    f"layers.{i}.self_attn.{side}_proj_target.weight": (KV_HEADS * HEAD_DIM, HIDDEN) for i in range(LAYERS) for side in "kv"
}  # fmt: skip
SINKS = {f"layers.{i}.self_attn.attention_sink_bias": (HEADS,) for i in range(LAYERS)}
SLIDES = {"layer_types": ["sliding_attention"] * LAYERS, "sliding_window": 9}
DSPARK = Facts(rows=7, start=0, head="vanilla", confidence=True)
OWN = {"own_embedding": True, "own_head": True}


def dspark(**changes):
    return Facts(**(vars(DSPARK) | changes))


LAYOUTS = {
    "JetSpec": Layout(
        QWEN3 | {"architectures": ["DFlashDraftModel"], "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
                 "block_size": 8, "dflash_config": INNER | {"causal_head": True}, "num_target_layers": 3,
                 "rope_parameters": {"rope_theta": THETA, "rope_type": "default"}},
        V1, Facts(causal=(True,) * LAYERS),
    ),
    "TorchSpec": Layout(
        QWEN3 | INNER | {"architectures": ["DFlashDraftModel"], "model_type": "dflash", "rope_theta": THETA,
                         "target_hidden_size": HIDDEN, "target_num_hidden_layers": 3, "num_target_layers": 3},
        V1, Facts(rows=16),
    ),
    "DeepSpec DSpark": Layout(DEEPSPEC, V1 | markov() | CONFIDENCE | EMBEDDING | HEAD, dspark(**OWN)),
    "DeepSpec DSpark, a hybrid target's keys": Layout(
        DEEPSPEC | COPIED | {"model_type": "qwen3_5_text"}, V1 | markov() | CONFIDENCE | EMBEDDING | HEAD, dspark(**OWN)
    ),
    "DeepSpec DSpark, gated": Layout(
        DEEPSPEC | {"markov_head_type": "gated"}, V1 | markov("gated") | CONFIDENCE, dspark(head="gated")
    ),
    "DeepSpec DSpark, rnn": Layout(
        DEEPSPEC | {"markov_head_type": "rnn"}, V1 | markov("rnn") | CONFIDENCE, dspark(head="rnn")
    ),
    "DeepSpec DFlash": Layout(
        {k: v for k, v in DEEPSPEC.items() if not k.startswith(("markov_head", "confidence"))}
        | {"markov_rank": 0, "enable_confidence_head": False},
        V1 | EMBEDDING | HEAD, dspark(head=None, confidence=False, **OWN),
    ),
    "SpecForge DSpark": Layout(
        QWEN3 | {"architectures": ["DSparkDraftModel"], "auto_map": {"AutoModel": "dspark.DSparkDraftModel"},
                 "block_size": 7, "num_target_layers": 3, "dflash_config": SPECFORGE_INNER, "rope_parameters": YARN},
        V1 | markov() | CONFIDENCE, DSPARK,
    ),
    "SGLang-normalised DSpark": Layout(
        DEEPSPEC | {"dflash_config": SPECFORGE_INNER, "target_hidden_size": None},
        V1 | {f"logit_head.{k}": v for k, v in (markov() | CONFIDENCE).items()}, DSPARK,
    ),
    "LiquidAI DSpark": Layout(
        {k: v for k, v in DEEPSPEC.items() if k not in (*INNER, "num_target_layers", "confidence_head_with_markov")}
        | {"architectures": ["Lfm2DSparkDraftModel"], "block_size": 9, "rope_is_neox_style": False,
           "dflash_config": INNER | {"num_target_layers": 3}},
        V1 | markov() | CONFIDENCE, dspark(rows=9, interleaved=True),
    ),
    "NVIDIA DSpark": Layout(
        NVIDIA, V1 | markov() | EMBEDDING | SINKS,
        Facts(windows=(11,) * LAYERS, causal=(True,) * LAYERS, own_embedding=True, head="vanilla"),
    ),
    "NVIDIA DFlash": Layout(
        {k: v for k, v in NVIDIA.items() if k not in ("block_size", "markov_rank", "dspark_bonus_anchor")}
        | {"architectures": ["DFlashDraftModel"], "attention_sink_bias": False, "dflash_query_causal": False,
           "dspark_markov_rank": None, "dspark_fixup_head_type": None, "layer_types": ["full_attention"] * LAYERS,
           "dflash_config": INNER | {"attention_sink_bias": False, "causal": False, "use_swa": False}},
        V1 | EMBEDDING, Facts(own_embedding=True),
    ),
    "speculators DFlash": Layout(SPECULATORS, V1 | REDUCED, Facts(draft_vocab=40, **OWN)),
    "speculators DSpark": Layout(
        SPECULATORS | {"architectures": ["DSparkSpeculator"], "speculators_model_type": "dspark", "markov_rank": RANK,
                       "markov_head_type": "vanilla", "enable_confidence_head": True,
                       "confidence_head_with_markov": True},
        V1 | REDUCED | markov(out=40) | CONFIDENCE, Facts(draft_vocab=40, head="vanilla", confidence=True, **OWN),
    ),
    "speculators DSpark, sliding": Layout(
        SPECULATORS
        | {"architectures": ["DSparkDraftModel"], "speculators_model_type": "dspark", "markov_rank": RANK,
           "markov_head_type": "vanilla", "draft_vocab_size": VOCAB, "sample_from_anchor": True,
           "speculators_config": SPECULATORS["speculators_config"] | {"proposal_methods": [{"speculative_tokens": 8}]},
           "transformer_layer_config": SPECULATORS["transformer_layer_config"] | SLIDES | {"use_sliding_window": True}},
        V1 | markov(), Facts(start=0, windows=(9,) * LAYERS, causal=(True,) * LAYERS, head="vanilla"),
    ),
    "Gemma 4 DSpark": Layout(
        GEMMA, GEMMA_TENSORS | markov() | CONFIDENCE | EMBEDDING | HEAD,
        dspark(gemma=True, kv_heads=1, rope_dims=4, embed_scale=HIDDEN**0.5, softcap=30.0, **OWN),
    ),
    "Qwen3.5 DSpark": Layout(
        DEEPSPEC | COPIED | {"architectures": ["Qwen35DSparkModel"], "model_type": "qwen3_5",
                             "enable_qwen35_gated_q_proj": True, "confidence_temperatures": [1.5] * 7},
        layers(q_out=2 * HEADS * HEAD_DIM) | FC | markov() | CONFIDENCE, dspark(rope_dims=4, norm_offset=1.0),
    ),
    "Bonsai DSpark": Layout(
        DEEPSPEC | {"log_snr_conditioning": True, "min_log_snr": -9.0, "max_log_snr": 9.0},
        V1 | markov() | CONFIDENCE
        | linear("log_snr_embed.fc1", out=HIDDEN, into=128, bias=True)
        | linear("log_snr_embed.fc2", out=HIDDEN, into=HIDDEN, bias=True), DSPARK,
    ),
    "Domino": Layout(
        QWEN3 | THETA_ABOVE
        | {"architectures": ["DominoDraftModel"], "emb_dim": 5, "block_size": 8, "num_target_layers": 3,
           "auto_map": {"AutoModel": "domino.DominoDraftModel"}, "dflash_config": DOMINO_INNER},
        V1 | DOMINO_TENSORS, Facts(start=0, head="domino", uncorrected=1),
    ),
    "SGLang-normalised Domino, labels not shifted": Layout(
        QWEN3 | THETA_ABOVE
        | {"architectures": ["DFlashDraftModel"], "emb_dim": 5, "block_size": 8, "num_target_layers": 3,
           "dflash_config": DOMINO_INNER | {"shift_label": False, "pure_draft_prefix_len": 2}},
        V1 | DOMINO_TENSORS, Facts(head="domino", uncorrected=2),
    ),
    "Laguna": Layout(
        {k: v for k, v in QWEN3.items() if k != "use_sliding_window"} | SLIDES
        | {"architectures": ["DFlashLagunaForCausalLM"], "model_type": "laguna", "draft_vocab_size": VOCAB,
           "gating": "per-head", "num_experts": 0, "rope_theta": THETA, "eagle_aux_hidden_state_layer_ids": [1, 2, 3],
           "dflash_config": INNER | {"block_size": 8, "num_target_layers": 3, "causal": True}},
        LAGUNA_TENSORS, Facts(windows=(9,) * LAYERS, causal=(True,) * LAYERS),
    ),
    "MiMo": Layout(
        QWEN3 | SLIDES | {"architectures": ["DFlashDraftModel"], "is_causal": False, "num_target_layers": 3,
                          "rope_parameters": {"rope_theta": THETA, "rope_type": "default"},
                          "dflash_config": INNER | {"block_size": 8, "attention_sink_bias": True,
                                                    "attention_value_scale": 0.707}},
        V1 | SINKS, Facts(windows=(9,) * LAYERS, value_scale=0.707),
    ),
    "DFlare": Layout(
        QWEN3 | THETA_ABOVE | {"architectures": ["QwenDFlareDraftModel"], "block_size": 8, "num_target_layers": 3,
                               "dflash_config": INNER},
        DFLARE_TENSORS, Facts(),
    ),
}  # fmt: skip
"""By the name that a failing test shows."""


def random_tensors(layout, seed=0):
    """Public names -> values, none at its neutral value."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in layout.tensors.items():
        if name == "d2t":  # offsets: draft id j is token j + d2t[j], all different
            chosen = np.sort(rng.choice(VOCAB, shape[0], replace=False))
            tensors[name] = (chosen - np.arange(shape[0])).astype(np.int64)
        elif name == "t2d":
            tensors[name] = np.zeros(shape, bool)
        else:
            scale = {1: 0.5, 2: 1.5 / np.sqrt(shape[-1])}[len(shape)]
            near = 0.0 if name.endswith(("bias", "sink_bias")) or layout.facts.norm_offset else float(len(shape) == 1)
            tensors[name] = (near + scale * rng.normal(size=shape)).astype(np.float32)
    return tensors


def save(folder, layout, tensors, **changes):
    """A drafter's folder as it lies on the Hub."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(layout.config | changes))
    mx.save_safetensors(str(folder / "model.safetensors"), {name: mx.array(value) for name, value in tensors.items()})
