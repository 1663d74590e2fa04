"""A drafter to train: a fresh one for a target, or one that exists, with what its layout adds to v1's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx

from mlx_ddtree.drafter.config import (
    ConfidenceConfig,
    DFlash2Config,
    DrafterConfig,
    MarkovConfig,
    default_target_layer_ids,
)
from mlx_ddtree.drafter.dflash2 import DFlash2Drafter
from mlx_ddtree.drafter.load_drafter import load_drafter
from mlx_ddtree.drafter.make import make_drafter
from mlx_ddtree.drafter.model import DFlashDrafter
from mlx_ddtree.errors import ConfigError, OptionError, UnsupportedModelError
from mlx_ddtree.pair import check_pair, inherit_scales
from mlx_ddtree.target import Target, TreeTarget
from mlx_ddtree.training.saving import flat


@dataclass(frozen=True)
class Layout:
    """What a drafter has besides v1's layers: DFlash 2's parts, or DSpark's heads, or neither."""

    dflash2: DFlash2Config | None = None
    markov: MarkovConfig | None = None
    confidence: ConfidenceConfig | None = None

    @property
    def block_size(self) -> int:
        """Tokens of a draft, the root included, as published: the additions help blocks of 7 drafts most."""
        return 16 if self == Layout() else 8

    @property
    def logits_start(self) -> int:
        """The row that predicts first in a fresh drafter: DSpark's blocks predict from the root's own."""
        return 0 if self.markov else 1


V1 = Layout()


def require_dense(target: Target) -> TreeTarget:
    """Only targets with an adapter have features to learn from."""
    if not isinstance(target, TreeTarget):
        raise UnsupportedModelError(f"model type {target.model_type!r} has no adapter here, so no drafter can learn it")
    return target


def dflash2_layout(target: TreeTarget, selector_rank: int | None = None) -> Layout:
    """DFlash 2's published sizes, as far as the target's allow them."""
    shape = DFlash2Config(selector_top_k=min(DFlash2Config.selector_top_k, target.vocab_size))
    if target.hidden_size % shape.conv_group_size:
        raise OptionError(f"--dflash2 needs a hidden size in groups of {shape.conv_group_size}: {target.hidden_size}")
    return Layout(dflash2=shape if selector_rank is None else replace(shape, selector_rank=selector_rank))


def dspark_layout(markov_rank: int | None = None) -> Layout:
    """DSpark's heads as published: a vanilla Markov head, of rank 256 unless given, and confidence that reads it."""
    return Layout(markov=MarkovConfig("vanilla", markov_rank or 256), confidence=ConfidenceConfig(with_markov=True))


def default_config(
    target: TreeTarget,
    mask_token_id: int,
    *,
    layers: int = 5,
    taps: int = 5,
    block_size: int | None = None,
    layout: Layout = V1,
) -> DrafterConfig:
    """A drafter with the target's own widths, heads and RoPE."""
    args = target.args
    block_size = layout.block_size if block_size is None else block_size
    tap_count = min(taps, target.num_layers - 2)
    if layers < 1 or tap_count < 1 or block_size < 2:
        raise OptionError(f"a drafter needs layers, taps and a block of 2 or more; got {layers}, {taps}, {block_size}")
    heads = args.num_attention_heads
    ids = sorted(set(default_target_layer_ids(target.num_layers, tap_count)))
    return DrafterConfig(
        hidden_size=target.hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=args.num_key_value_heads or heads,
        head_dim=getattr(args, "head_dim", None) or target.hidden_size // heads,
        intermediate_size=args.intermediate_size,
        vocab_size=target.vocab_size,
        rms_norm_eps=args.rms_norm_eps,
        max_position_embeddings=getattr(args, "max_position_embeddings", None) or 40960,
        rope_theta=getattr(args, "rope_theta", 1e4),  # gemma4 has one a kind of layer
        rope_scaling=getattr(args, "rope_scaling", None),
        rope_traditional=getattr(args, "rope_traditional", False),
        attention_bias=False,
        block_size=block_size,
        mask_token_id=mask_token_id,
        target_layer_ids=tuple(ids),
        num_target_layers=target.num_layers,
        windows=(None,) * layers,
        causal=(False,) * layers,
        logits_start=layout.logits_start,
        **vars(layout),
    )


def new_drafter(config: DrafterConfig, target: TreeTarget, seed: int) -> DFlashDrafter:
    """Random float32 weights, a function of the seed; the final norm is the target's.

    The drafter speaks through the target's head, which expects rows of that norm's scale: after 60
    to 80 steps the demo pair's validation loss was 0.1 lower than with ones (three seeds of three).
    """
    mx.random.seed(seed)
    drafter = make_neutral(config)
    inherit_scales(target, drafter)
    drafter.norm.weight = target.anatomy.norm_gains
    mx.eval(drafter.parameters())
    return drafter


def make_neutral(config: DrafterConfig) -> DFlashDrafter:
    """Random weights, but what DFlash 2 and DSpark add changes no draft until it is trained."""
    drafter = make_drafter(config, len(config.target_layer_ids or ()))
    if isinstance(drafter, DFlash2Drafter):
        for layer in drafter.layers:
            for conv in (layer.attention_conv, layer.mlp_conv):
                conv.kernel_projection.weight = mx.zeros_like(conv.kernel_projection.weight)
        successors = drafter.candidate_selector.successor_codebook
        successors.weight = mx.zeros_like(successors.weight)  # of the three factors, one: the others give it a gradient
    if config.markov is not None:
        said = drafter.markov_head.markov_w2
        said.weight = mx.zeros_like(said.weight)
    return drafter


def start_from(folder: Path, target: TreeTarget, block_size: int | None = None, layout: Layout = V1) -> DFlashDrafter:
    """An existing drafter in float32, to train on; its own block size unless another is given.

    layout: what a v1 drafter gets in addition; it drafts as before until that is trained, from the same row on.
    """
    drafter = load_drafter(folder)
    if drafter.config.quantization is not None:
        raise ConfigError(f"the drafter in {folder} is quantised and cannot be trained; start from its 16-bit original")
    refuse_untrainable(drafter.config, folder)
    taps = check_pair(target, drafter)
    inherit_scales(target, drafter)
    drafter.config = replace(
        drafter.config,
        target_layer_ids=taps,
        num_target_layers=target.num_layers,
        vocab_size=target.vocab_size,
        block_size=block_size or drafter.config.block_size,
    )
    has = Layout(drafter.config.dflash2, drafter.config.markov, drafter.config.confidence)
    if layout != V1 and has == V1:
        v1 = drafter
        drafter = make_neutral(replace(v1.config, **vars(layout)))
        drafter.load_weights(list(flat(v1.parameters()).items()), strict=False)
    elif layout != V1 and (layout.markov is None) != (has.markov is None):
        raise OptionError(f"the drafter in {folder} has another layout's heads; start from a v1 drafter")
    drafter.set_dtype(mx.float32)
    drafter.train()
    mx.eval(drafter.parameters())
    return drafter


def refuse_untrainable(config: DrafterConfig, folder: Path) -> None:
    """Layouts that decoding knows and training does not."""
    only = DrafterConfig.__dataclass_fields__
    for name in ("layers", "domino", "log_snr", "own_embedding", "own_head"):
        value = getattr(config, name)
        if value != only[name].default:
            raise ConfigError(
                f"the drafter in {folder} cannot be trained here: only v1's, DFlash 2's and DSpark's can, and {name} "
                f"is {value!r}"
            )
    if config.markov is not None and config.markov.kind != "vanilla":
        raise ConfigError(
            f"the drafter in {folder} cannot be trained here: its Markov head is {config.markov.kind}, and only "
            "vanilla ones can be"
        )
