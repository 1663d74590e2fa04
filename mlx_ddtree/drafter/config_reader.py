"""The rules by which a drafter's config.json, of whatever packaging, becomes the fields of a DrafterConfig."""

from __future__ import annotations

from typing import Any

from mlx_ddtree.drafter.config_attention import AttentionKeys
from mlx_ddtree.drafter.config_heads import ASSISTANT, DFLARE, DFLASH2, GEMMA4, LAGUNA
from mlx_ddtree.errors import ConfigError

GEMMA_MASK_TOKEN = 4
"""Gemma's <mask>; its drafters leave the key out."""


class ConfigReader(AttentionKeys):
    """One file's keys; `read` is the reading."""

    def read(self) -> dict[str, Any]:
        """The fields of DrafterConfig.  Raises ConfigError naming the key that is missing or not understood."""
        self.refuse_foreign()
        self.refuse_unsupported()
        layers = self.size("num_hidden_layers")
        hidden = self.size("hidden_size")
        heads, kv_heads = self.heads()
        head_dim = self.head_dim(hidden // heads)
        theta, scaling = self.rope()
        windows = self.windows(layers)
        start = self.logits_start()
        gemma = self.architecture == GEMMA4
        vocab = self.vocab_size()
        return {
            "layers": self.layers(),
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "intermediate_size": self.size("intermediate_size"),
            "vocab_size": vocab,
            "draft_vocab_size": self.draft_vocab_size(vocab),
            "rms_norm_eps": float(self.above_zero("rms_norm_eps") or 1e-6),
            "max_position_embeddings": self.integer("max_position_embeddings", 40960),
            "rope_theta": theta,
            "rope_scaling": scaling,
            "rope_traditional": self.rope_is_traditional(),
            "rope_dims": self.rope_dims(head_dim),
            "attention_bias": bool(self.get("attention_bias", default=False)),
            "sinks": bool(self.get("attention_sink_bias", default=False)),
            "value_scale": float(self.above_zero("attention_value_scale") or 1.0),
            "head_gate": self.head_gate(),
            "keys_are_values": gemma and self.flag("attention_k_eq_v", default=False),
            "block_size": self.rows() + 1 - start,
            "logits_start": start,
            "mask_token_id": self.mask_token(),
            "target_layer_ids": self.target_layer_ids(),
            "num_target_layers": self.num_target_layers(),
            "target": self.target(),
            "windows": windows,
            "causal": self.causality(windows),
            "logit_softcap": self.above_zero("final_logit_softcapping"),
            "logit_scale": float(self.above_zero("output_multiplier", "logit_scale") or 1.0),
            "embed_scale": hidden**0.5 if gemma else self.embed_scale(),
            "quantization": self.typed("object", "quantization", "quantization_config"),
            "dflash2": self.dflash2(hidden),
            "markov": self.markov(),
            "confidence": self.confidence(),
            "domino": self.domino(),
            "log_snr": self.log_snr(),
        }

    def refuse_unsupported(self) -> None:
        """Known keys with values for which there is no computation here."""
        if self.get("attention_mode", default="gqa") not in ("gqa", "mha"):
            self.refuse_value("attention_mode", "gqa and mha are")
        activation = self.get("hidden_act", "hidden_activation", default="silu")
        usual = "gelu_pytorch_tanh" if self.architecture == GEMMA4 else "silu"
        if activation != usual:
            raise ConfigError(f"drafter config.json: 'hidden_act' = {activation!r} is not supported ({usual} is)")
        if self.get("gating") and self.layers() != "laguna":
            self.refuse_value("gating", "only Laguna's drafters have a known gate")
        if self.layers() == "qwen3_5" and self.get("model_type") != "qwen3_5":
            self.refuse_value("model_type", "with Qwen3.5's gate, only qwen3_5 says how the norms are stored")
        if self.layers() == "dflash" and self.get("model_type") == "qwen3_5":
            self.refuse_value("model_type", "Qwen3.5's layers have a gate, and this file has no key for it")
        if self.layers() == "sinks" and self.architecture in (DFLASH2, GEMMA4, LAGUNA, *DFLARE):
            self.refuse_value("attention_sink_bias", "known are sinks and value scales of plain layers only")
        for key in ("enable_moe_block", "hidden_size_per_layer_input", "num_kv_shared_layers", "use_double_wide_mlp"):
            if self.get(key):
                self.refuse_value(key, "the reference implementation has no such drafter either")
        widths = (self.get("target_hidden_size"), self.get("hidden_size"))
        if widths[0] is not None and widths[0] != widths[1]:
            self.refuse_value("target_hidden_size", f"features as wide as the drafter ({widths[1]}) are")

    def vocab_size(self) -> int | None:
        if self.architecture == ASSISTANT and self.get("vocab_size") is None:
            return None
        return self.size("vocab_size")

    def draft_vocab_size(self, vocab_size: int | None) -> int | None:
        """Tokens that the drafter can propose, where they are fewer than the target's; None for all."""
        if self.get("draft_vocab_size") is None or vocab_size is None:
            return None
        size = self.size("draft_vocab_size")
        if size > vocab_size or (size < vocab_size and self.architecture in (DFLASH2, LAGUNA)):
            self.refuse_value("draft_vocab_size", f"the vocabulary has {vocab_size}")
        return size if size < vocab_size else None

    def num_target_layers(self) -> int | None:
        if (
            self.get("target_num_hidden_layers") is not None
        ):  # TorchSpec's own name; num_target_layers counts taps there
            return self.size("target_num_hidden_layers")
        if self.get("num_target_layers") is None:
            return None
        return self.size("num_target_layers")

    def target_layer_ids(self) -> tuple[int, ...] | None:
        """The tapped layers, counted from 0.  Eagle's numbers count the embedding as layer 0."""
        ids = self.integers("target_layer_ids") or self.integers("aux_hidden_state_layer_ids")
        if not ids:
            ids = [
                None if layer is None else layer - 1
                for layer in self.integers("eagle_aux_hidden_state_layer_ids") or []
            ]
        return tuple(layer for layer in ids if layer is not None) or None

    def mask_token(self) -> int:
        gemma = str(self.get("model_type", default="")).startswith("gemma")
        return self.integer("mask_token_id", GEMMA_MASK_TOKEN if gemma else None)

    def embed_scale(self) -> float:
        return float(self.above_zero("input_embedding_scale", "embed_scale") or 1.0)
