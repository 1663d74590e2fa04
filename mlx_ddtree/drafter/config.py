"""One tolerant parser for every layout of a DFlash drafter's config.json: v1, DFlash 2 and Meta's assistants.

Published checkpoints put the same facts in different places; the rules below accept all that
were seen and refuse, by name, every key that could change the computation and is not understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlx_ddtree.errors import ConfigError

GEMMA_MASK_TOKEN = 4
"""Gemma's <mask>; its drafters leave the key out."""

_UNDERSTOOD = frozenset(
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
_HARMLESS = frozenset(
    """
    _attn_implementation _name_or_path attention_dropout attn_implementation auto_map base_model bos_token_id
    chunk_size_feed_forward dtype eos_token_id id2label initializer_range is_encoder_decoder label2id license
    loss_gamma mlp_bias name_or_path num_anchors output_attentions output_hidden_states pad_token_id
    pretraining_tp problem_type return_dict target_model target_model_name_or_path torch_dtype
    transformers_version use_cache
    """.split()
)
_DFLASH2 = "DFlash2DraftModel"
_ASSISTANT = "MuseGlimmerAssistantModel"
"""Meta's: the v1 network, always bidirectional inside the block."""
_ARCHITECTURES = ("DFlashDraftModel", "DFlashModel", _DFLASH2, _ASSISTANT)
_ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")
_KINDS: dict[str, tuple[type, ...]] = {"number": (int, float), "list": (list, tuple), "object": (Mapping,)}


@dataclass(frozen=True)
class DFlash2Config:
    """What DFlash 2 adds: the convolutions' taps and channels a group, the selector's rank and candidates."""

    conv_kernel_size: int = 2
    conv_group_size: int = 16
    selector_rank: int = 256
    selector_top_k: int = 16


@dataclass(frozen=True)
class DrafterConfig:
    """What the drafter computes, whatever the file called it.

    vocab_size: None when the file leaves it out (Meta's assistants do); the target's then.
    windows: one entry a layer; None sees the whole context, w sees the last w positions.
    causal: one entry a layer; False is bidirectional inside the block.
    target_layer_ids: None when the file leaves it out (see `default_target_layer_ids`).
    dflash2: None for a v1 drafter.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int | None
    rms_norm_eps: float
    max_position_embeddings: int
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    rope_traditional: bool
    attention_bias: bool
    block_size: int
    mask_token_id: int
    target_layer_ids: tuple[int, ...] | None
    num_target_layers: int | None
    windows: tuple[int | None, ...]
    causal: tuple[bool, ...]
    logit_softcap: float | None = None
    logit_scale: float = 1.0
    embed_scale: float = 1.0
    quantization: dict[str, Any] | None = None
    dflash2: DFlash2Config | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DrafterConfig:
        """Read a config.json.  Raises ConfigError naming the key that is missing or not understood."""
        return _Reader(config).read()

    def describe(self) -> str:
        """One line for --verbose: how the file was read."""
        windows = sorted({"full" if w is None else str(w) for w in self.windows})
        return (
            f"{self.num_hidden_layers} layers, block {self.block_size}, taps {self.target_layer_ids}, "
            f"mask token {self.mask_token_id}, windows {'/'.join(windows)}, "
            f"causal layers {sum(self.causal)}/{len(self.causal)}, rope theta {self.rope_theta:g}"
            + (f", DFlash 2 with {self.dflash2.selector_top_k} candidates" if self.dflash2 else "")
        )


def default_target_layer_ids(num_target_layers: int, taps: int) -> tuple[int, ...]:
    """The layers a drafter taps when its config does not say (official rule of DFlash's code)."""
    if taps == 1:
        return (num_target_layers // 2,)
    return tuple(round(1 + i * (num_target_layers - 4) / (taps - 1)) for i in range(taps))


class _Reader:
    """Looks every key up at the top level first, then inside `dflash_config`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.inner: Mapping[str, Any] = {}
        self.config = {k: v for k, v in config.items() if v is not None}
        self.inner = self.typed("object", "dflash_config", default={})
        self.architecture = (self.typed("list", "architectures") or _ARCHITECTURES)[0]

    def get(self, *keys: str, default: Any = None) -> Any:
        for source in (self.config, self.inner):
            for key in keys:
                if source.get(key) is not None:
                    return source[key]
        return default

    def integer(self, key: str, default: int | None = None, least: int = 0) -> int:
        value = self.get(key, default=default)
        if not _is_integer(value) or value < least:
            problem = "is missing" if value is None else f"is {value!r}, not a whole number from {least}"
            raise ConfigError(f"drafter config.json: {key!r} {problem}")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        return self.integer(key, default, least=1)

    def typed(self, kind: str, *keys: str, default: Any = None) -> Any:
        """The value if it is a JSON `kind`, or the default."""
        value = self.get(*keys, default=default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, _KINDS[kind])):
            raise ConfigError(f"drafter config.json: {keys[0]!r} is {value!r}, but must be of type {kind}")
        return value

    def integers(self, key: str) -> list[int | None] | None:
        """A list of whole numbers, null and negative ones too, or None."""
        values = self.typed("list", key)
        if not all(value is None or _is_integer(value) for value in values or ()):
            raise ConfigError(f"drafter config.json: {key!r} is {values!r}, not a list of whole numbers")
        return values

    def read(self) -> DrafterConfig:
        self.refuse_unknown()
        layers = self.size("num_hidden_layers")
        heads, kv_heads = self.heads()
        hidden = self.size("hidden_size")
        theta, scaling = self.rope()
        windows = self.windows(layers)
        ids = self.integers("target_layer_ids")
        return DrafterConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=self.size("head_dim", hidden // heads),
            intermediate_size=self.size("intermediate_size"),
            vocab_size=self.vocab_size(),
            rms_norm_eps=float(self.typed("number", "rms_norm_eps", default=1e-6)),
            max_position_embeddings=self.integer("max_position_embeddings", 40960),
            rope_theta=theta,
            rope_scaling=scaling,
            rope_traditional=bool(self.get("interleaved", default=False))
            or self.get("rope_is_neox_style", default=True) is False,
            attention_bias=bool(self.get("attention_bias", default=False)),
            block_size=self.block_size(),
            mask_token_id=self.mask_token(),
            target_layer_ids=tuple(i for i in ids if i is not None) if ids else None,
            num_target_layers=self.typed("number", "num_target_layers"),
            windows=windows,
            causal=self.causality(windows),
            logit_softcap=self.typed("number", "final_logit_softcapping"),
            logit_scale=float(self.typed("number", "output_multiplier", default=1.0)),
            embed_scale=float(self.typed("number", "input_embedding_scale", "embed_scale", default=1.0)),
            quantization=self.typed("object", "quantization", "quantization_config"),
            dflash2=self.dflash2(hidden),
        )

    def refuse_unknown(self) -> None:
        if self.architecture not in _ARCHITECTURES:
            raise ConfigError(
                f"drafter architecture {self.architecture!r} is not supported; known: {', '.join(_ARCHITECTURES)}"
            )
        for key in (*self.config, *self.inner):
            if key not in _UNDERSTOOD and key not in _HARMLESS:
                raise ConfigError(
                    f"drafter config.json: key {key!r} is not understood, and ignoring it could draft the wrong "
                    "tokens; please report the checkpoint, or remove the key if it changes nothing"
                )
        for key in ("gating", "attention_sink_bias", "projector_type"):
            if self.get(key):
                raise ConfigError(f"drafter config.json: {key!r} = {self.get(key)!r} is not supported")
        if self.get("attention_mode", default="gqa") not in ("gqa", "mha"):
            raise ConfigError(
                f"drafter config.json: 'attention_mode' = {self.get('attention_mode')!r} is not supported"
            )
        activation = self.get("hidden_act", "hidden_activation", default="silu")
        if activation != "silu":
            raise ConfigError(f"drafter config.json: 'hidden_act' = {activation!r} is not supported (silu is)")
        if self.get("draft_vocab_size", default=self.get("vocab_size")) != self.get("vocab_size"):
            raise ConfigError("drafter config.json: 'draft_vocab_size' differs from 'vocab_size': not supported")

    def vocab_size(self) -> int | None:
        silent = self.architecture == _ASSISTANT and self.get("vocab_size") is None
        return None if silent else self.size("vocab_size")

    def dflash2(self, hidden_size: int) -> DFlash2Config | None:
        """The four sizes: all of them in a DFlash 2 drafter, none in another."""
        keys = [field.name for field in fields(DFlash2Config)]
        if self.architecture != _DFLASH2:
            for key in keys:
                if self.get(key):
                    raise ConfigError(f"drafter config.json: {key!r} belongs to {_DFLASH2}, not {self.architecture}")
            return None
        shape = DFlash2Config(**{key: self.size(key) for key in keys})
        if hidden_size % shape.conv_group_size:
            raise ConfigError(
                f"drafter config.json: 'conv_group_size' {shape.conv_group_size} does not divide {hidden_size} channels"
            )
        if shape.selector_top_k > self.size("vocab_size"):
            raise ConfigError(f"drafter config.json: 'selector_top_k' {shape.selector_top_k} exceeds the vocabulary")
        return shape

    def heads(self) -> tuple[int, int]:
        """(query heads, key and value heads)."""
        heads = self.size("num_attention_heads")
        kv_heads = self.size("num_key_value_heads", heads)
        if heads % kv_heads:
            raise ConfigError(f"drafter config.json: 'num_key_value_heads' {kv_heads} does not divide {heads} heads")
        return heads, kv_heads

    def block_size(self) -> int:
        size = self.integer("block_size", 8 if self.architecture == _DFLASH2 else 16)
        if size < 2:
            raise ConfigError(f"drafter config.json: 'block_size' is {size}; a block holds the bonus token and a draft")
        return size

    def mask_token(self) -> int:
        gemma = str(self.get("model_type", default="")).startswith("gemma")
        return self.integer("mask_token_id", GEMMA_MASK_TOKEN if gemma else None)

    def rope(self) -> tuple[float, dict[str, Any] | None]:
        """(theta, scaling): at the top level, inside rope_parameters, or inside rope_scaling."""
        parameters = self.typed("object", "rope_parameters", default={})
        scaling = self.typed("object", "rope_scaling") or (
            parameters if parameters.get("rope_type", "default") != "default" else None
        )
        theta = self.get("rope_theta") or parameters.get("rope_theta") or (scaling or {}).get("rope_theta")
        if theta is None:
            raise ConfigError("drafter config.json: 'rope_theta' is missing (also in rope_parameters and rope_scaling)")
        if isinstance(theta, bool) or not isinstance(theta, int | float):
            raise ConfigError(f"drafter config.json: 'rope_theta' is {theta!r}, not a number")
        return float(theta), self.check_scaling(scaling) if scaling else None

    def check_scaling(self, scaling: Mapping[str, Any]) -> dict[str, Any]:
        kind = scaling.get("type") or scaling.get("rope_type") or ("default" if "factor" not in scaling else None)
        if kind not in _ROPE_TYPES:
            raise ConfigError(f"drafter config.json: 'rope_type' {kind!r} is not supported: {', '.join(_ROPE_TYPES)}")
        if kind in ("linear", "llama3", "yarn") and not isinstance(scaling.get("factor"), int | float):
            raise ConfigError(f"drafter config.json: {kind} RoPE needs a number as 'factor'")
        return dict(scaling)

    def windows(self, layers: int) -> tuple[int | None, ...]:
        per_layer = self.integers("sliding_windows")
        if per_layer is not None:
            result = tuple(w if w and w > 0 else None for w in per_layer)
        elif (types := self.typed("list", "layer_types")) is not None:
            result = tuple(self.window_of_type(t) for t in types)
        elif (window := self.window_of_all()) is None:
            result = (None,) * layers
        elif self.get("sliding_window_pattern") is not None:
            pattern = self.size("sliding_window_pattern")
            result = tuple(None if (i + 1) % pattern == 0 else window for i in range(layers))
        else:
            result = (window,) * layers
        if len(result) != layers:
            raise ConfigError(f"drafter config.json: {len(result)} layer types or windows for {layers} layers")
        return result

    def window_of_type(self, layer_type: str) -> int | None:
        if layer_type == "full_attention":
            return None
        if layer_type != "sliding_attention":
            raise ConfigError(f"drafter config.json: layer type {layer_type!r} is not supported")
        return self.size("swa_window_size" if self.get("sliding_window") is None else "sliding_window")

    def window_of_all(self) -> int | None:
        """A window for every layer: only where the file switches it on, since Qwen3's configs carry
        `sliding_window` beside `use_sliding_window: false`."""
        if self.get("use_swa"):
            return self.size("swa_window_size")
        if self.get("draft_window_size"):
            return self.size("draft_window_size")
        switched_on = self.get("use_sliding_window", default=self.get("sliding_window_pattern") is not None)
        return self.size("sliding_window") if switched_on and self.get("sliding_window") else None

    def causality(self, windows: tuple[int | None, ...]) -> tuple[bool, ...]:
        """Said outright, or else causal in sliding layers and bidirectional in full ones."""
        said = False if self.architecture == _ASSISTANT else self.get("dflash_query_causal", "causal", "is_causal")
        return tuple(window is not None if said is None else bool(said) for window in windows)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
