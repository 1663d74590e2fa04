"""From a configuration to a network: its layers, and the heads that stand on them."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.config import DrafterConfig
from mlx_ddtree.drafter.dflare import DFlareDrafter
from mlx_ddtree.drafter.dflash2 import DFlash2Drafter
from mlx_ddtree.drafter.gemma4 import Gemma4Drafter
from mlx_ddtree.drafter.laguna import LagunaDrafter
from mlx_ddtree.drafter.log_snr import LogSnrEmbedding
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.drafter.path_heads import MARKOV_HEADS, ConfidenceHead, DominoHead
from mlx_ddtree.drafter.qwen35 import Qwen35Drafter
from mlx_ddtree.drafter.sinks import SinkDrafter

LAYERS: dict[str, type[DFlashDrafter]] = {
    "dflash": DFlashDrafter,
    "sinks": SinkDrafter,
    "laguna": LagunaDrafter,
    "dflare": DFlareDrafter,
    "qwen3_5": Qwen35Drafter,
    "gemma4": Gemma4Drafter,
}
"""Kinds of layers by the name that DrafterConfig.layers has for them; DFlash 2's are the first ones and more."""


def make_drafter(config: DrafterConfig, taps: int) -> DFlashDrafter:
    """The network that a config describes, with weights of no use yet."""
    drafter = (DFlash2Drafter if config.dflash2 else LAYERS[config.layers])(config, taps)
    if config.own_embedding:
        drafter.embed_tokens = nn.Embedding(_vocabulary(config), config.hidden_size)
    if config.own_head:
        drafter.lm_head = nn.Linear(config.hidden_size, config.draft_vocab_size or _vocabulary(config), bias=False)
    if config.draft_vocab_size is not None:
        drafter.d2t = mx.zeros((config.draft_vocab_size,), mx.int32)
    if config.markov is not None:
        drafter.markov_head = MARKOV_HEADS[config.markov.kind](config, config.markov)
    if config.domino is not None:
        drafter.domino = DominoHead(config, config.domino)
    if config.confidence is not None:
        rank = config.markov.rank if config.markov and config.confidence.with_markov else 0
        drafter.confidence_head = ConfidenceHead(config.hidden_size + rank)
    if config.log_snr is not None:
        drafter.log_snr_embed = LogSnrEmbedding(config.hidden_size)
    return drafter


def _vocabulary(config: DrafterConfig) -> int:
    assert config.vocab_size is not None
    return config.vocab_size
