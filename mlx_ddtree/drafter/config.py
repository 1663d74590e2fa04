"""What a drafter computes, whatever its file called it; config_reader.py reads the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_ddtree.drafter.config_parts import ConfidenceConfig, DFlash2Config, DominoConfig, MarkovConfig
from mlx_ddtree.drafter.config_reader import ConfigReader


@dataclass(frozen=True)
class DrafterConfig:
    """What the drafter computes, whatever the file called it.

    vocab_size: None when the file leaves it out (Meta's assistants do); the target's then.
    block_size: tokens of a draft, the root included.
    target_layer_ids: None when the file leaves it out (see `default_target_layer_ids`).
    windows: one entry a layer; None sees the whole context, w sees the last w positions.
    causal: one entry a layer; False is bidirectional inside the block.
    logits_start: the row that predicts the first token behind the root: 0 is the root's own, 1 the first mask's.
    layers: the kind of layers, a name in make.LAYERS.
    rope_dims: channels of a head that RoPE turns; None for all.
    sinks, value_scale, head_gate, keys_are_values: what some layers' attention does besides.
    draft_vocab_size: None where every token can be proposed.
    own_embedding, own_head: whether the drafter's tensors have them; the target's are used otherwise.
    log_snr: the least and the largest noise level that rows are told; None where they are told none.
    target: the repository of the target that the file names.
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
    logits_start: int = 1
    layers: str = "dflash"
    rope_dims: int | None = None
    sinks: bool = False
    value_scale: float = 1.0
    head_gate: bool = False
    keys_are_values: bool = False
    draft_vocab_size: int | None = None
    own_embedding: bool = False
    own_head: bool = False
    log_snr: tuple[float, float] | None = None
    target: str | None = None
    dflash2: DFlash2Config | None = None
    markov: MarkovConfig | None = None
    confidence: ConfidenceConfig | None = None
    domino: DominoConfig | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DrafterConfig:
        """Read a config.json.  Raises ConfigError naming the key that is missing or not understood."""
        return cls(**ConfigReader(config).read())

    def rows(self, block_size: int) -> int:
        """Rows that a draft of `block_size` tokens, the root included, takes: the root's and the masks'."""
        return block_size - 1 + self.logits_start

    def describe(self) -> str:
        """One line for --verbose: how the file was read."""
        windows = sorted({"full" if window is None else str(window) for window in self.windows})
        parts = [
            f"{self.num_hidden_layers} {self.layers} layers",
            f"block {self.block_size}",
            f"row {self.logits_start} predicts first",
            f"taps {self.target_layer_ids}",
            f"mask token {self.mask_token_id}",
            f"windows {'/'.join(windows)}",
            f"causal layers {sum(self.causal)}/{len(self.causal)}",
            f"rope theta {self.rope_theta:g}",
        ]
        return ", ".join(parts + self.extras())

    def extras(self) -> list[str]:
        """What stands on the layers, in words."""
        extras = []
        if self.dflash2:
            extras.append(f"DFlash 2 with {self.dflash2.selector_top_k} candidates")
        if self.markov:
            extras.append(f"{self.markov.kind} Markov head of rank {self.markov.rank}")
        if self.domino:
            extras.append(f"Domino with a state of {self.domino.cell_size}")
        if self.confidence:
            extras.append("confidence head")
        if self.own_embedding:
            extras.append("own embedding")
        if self.own_head:
            extras.append("own head")
        if self.draft_vocab_size:
            extras.append(f"{self.draft_vocab_size:,} tokens to propose")
        return extras


def default_target_layer_ids(num_target_layers: int, taps: int) -> tuple[int, ...]:
    """The layers a drafter taps when its config does not say (official rule of DFlash's code)."""
    if taps == 1:
        return (num_target_layers // 2,)
    return tuple(round(1 + i * (num_target_layers - 4) / (taps - 1)) for i in range(taps))
