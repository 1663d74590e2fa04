"""The keys of a drafter's config.json: which are known, where they stand, and their values with checked types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from mlx_ddtree.errors import ConfigError

UNDERSTOOD = frozenset(
    """
    architectures attention_bias attention_mode attention_sink_bias block_size causal conv_group_size
    conv_kernel_size dflash_config dflash_query_causal draft_vocab_size draft_window_size embed_scale
    final_logit_softcapping gating head_dim hidden_act hidden_activation hidden_size input_embedding_scale
    interleaved intermediate_size is_causal layer_types mask_token_id max_position_embeddings max_window_layers
    model_type num_attention_heads num_hidden_layers num_key_value_heads num_target_layers output_multiplier
    projector_type quantization quantization_config rms_norm_eps rope_is_neox_style rope_parameters rope_scaling
    rope_theta runtime_block_size selector_rank selector_top_k sliding_window sliding_window_pattern sliding_windows
    swa_window_size target_layer_ids tie_word_embeddings use_sliding_window use_swa vocab_size
    """.split()
)
"""Keys that say what is computed, or whose values are checked."""
HARMLESS = frozenset(
    """
    _attn_implementation _name_or_path attention_dropout attn_implementation auto_map base_model bos_token_id
    chunk_size_feed_forward dtype eos_token_id id2label initializer_range is_encoder_decoder label2id license
    loss_gamma mlp_bias name_or_path num_anchors output_attentions output_hidden_states pad_token_id
    pretraining_tp problem_type return_dict target_model target_model_name_or_path torch_dtype
    transformers_version use_cache
    """.split()
)
"""Keys that cannot change what is computed."""
LARGEST = {"num_hidden_layers": 1024, "block_size": 1024, "conv_kernel_size": 1024}
"""What is far above every drafter: more would run for ever."""
LARGEST_SIZE = 2**31 - 1
"""MLX counts along an axis in 32 bits."""
_KINDS: dict[str, tuple[type, ...]] = {"number": (int, float), "list": (list, tuple), "object": (Mapping,)}


class ConfigKeys:
    """Looks every key up at the top level first, then inside `dflash_config`.

    All methods raise ConfigError naming the key.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.inner: Mapping[str, Any] = {}
        self.config = {key: value for key, value in config.items() if value is not None}
        self.inner = self.typed("object", "dflash_config", default={})

    def get(self, *keys: str, default: Any = None) -> Any:
        """The value of the first of `keys` that is there and not null, of whatever type."""
        for source in (self.config, self.inner):
            for key in keys:
                if source.get(key) is not None:
                    return source[key]
        return default

    def integer(self, key: str, default: int | None = None, least: int = 0) -> int:
        """A whole number from `least` up to what no drafter exceeds."""
        value = self.get(key, default=default)
        most = LARGEST.get(key, LARGEST_SIZE)
        if not is_integer(value) or not least <= value <= most:
            problem = "is missing" if value is None else f"is {value!r}, not a whole number from {least} to {most:,}"
            raise ConfigError(f"drafter config.json: {key!r} {problem}")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number from 1."""
        return self.integer(key, default, least=1)

    def above_zero(self, *keys: str, default: float | None = None) -> float | None:
        """A finite number above 0, or the default."""
        value = self.typed("number", *keys, default=default)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"drafter config.json: {keys[0]!r} is {value!r}, but must be a number above 0")
        return value

    def typed(self, kind: str, *keys: str, default: Any = None) -> Any:
        """The value if it is a JSON `kind` (number, list, object), or the default."""
        value = self.get(*keys, default=default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, _KINDS[kind])):
            raise ConfigError(f"drafter config.json: {keys[0]!r} is {value!r}, but must be of type {kind}")
        return value

    def integers(self, key: str) -> list[int | None] | None:
        """A list of whole numbers, null and negative ones too, or None."""
        values = self.typed("list", key)
        for value in values or ():
            if value is not None and not (is_integer(value) and abs(value) <= LARGEST_SIZE):
                raise ConfigError(f"drafter config.json: {key!r} is {values!r}, not a list of whole numbers")
        return values

    def refuse_unknown(self, architecture: str) -> None:
        """A key that is not known could change the computation, and nobody would see it but by slow drafting."""
        for source in (self.config, self.inner):
            for key in source:
                if key not in UNDERSTOOD and key not in HARMLESS:
                    raise ConfigError(_about_unknown(key, source[key], architecture))


def is_integer(value: Any) -> bool:
    """Whether a JSON value is a whole number (true and false are none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def _about_unknown(key: str, value: Any, architecture: str) -> str:
    shown = repr(value)
    if len(shown) > 40:
        shown = f"{shown[:40]}..."
    close = get_close_matches(key, UNDERSTOOD, n=3)
    known = f"like it are known: {', '.join(close)}" if close else "no known key is like it"
    return (
        f"drafter config.json: key {key!r} = {shown} is not understood in a {architecture}, and a drafter that is "
        f"read wrongly drafts wrong tokens ({known}). Please report this line and the name of the checkpoint; until "
        "the key is known here, use another drafter or decode plainly (draft=False / --method ar)"
    )
