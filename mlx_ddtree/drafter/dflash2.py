"""What DFlash 2 adds to the drafter: convolutions along the block, and scores of pairs of tokens (selector.py).

Both let a position know its predecessor, which a block drafted in one pass otherwise cannot.  Layout and
formulas as in the public integrations (vLLM pull request 52816, SpecForge 772).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.config import DFlash2Config, DrafterConfig
from mlx_ddtree.drafter.model import DFlashDrafter, DFlashLayer, Head, Sublayer
from mlx_ddtree.drafter.selector import CandidateSelector


class GroupedConv(nn.Module):
    """A causal convolution along the block before a sublayer, and another one behind it.

    A channel's kernel is learned (`base_kernel`) plus a correction that its group of channels shares and that
    is computed anew at every position.  Both convolutions' corrections come from the sublayer's input.
    """

    def __init__(self, hidden_size: int, shape: DFlash2Config) -> None:
        super().__init__()
        self.taps = shape.conv_kernel_size
        self.groups = hidden_size // shape.conv_group_size
        identity = mx.zeros((2, self.taps, hidden_size))
        identity[:, 0] = 1.0
        self.base_kernel = identity
        self.kernel_projection = nn.Linear(hidden_size, 2 * self.taps * self.groups, bias=False)

    def __call__(self, block: mx.array, sublayer: Sublayer) -> mx.array:
        """(N, B, D), one block a row -> (N, B, D)."""
        corrections = self.kernel_projection(block).reshape(*block.shape[:2], 2, self.taps, self.groups, 1)
        block = self._convolve(block, corrections[:, :, 0], side=0)
        block = sublayer(block)
        return self._convolve(block, corrections[:, :, 1], side=1)

    def _convolve(self, rows: mx.array, corrections: mx.array, side: int) -> mx.array:
        """Rows (N, B, D) and corrections (N, B, taps, groups, 1) -> (N, B, D).

        side: 0 before the sublayer, 1 behind it.  Nothing stands before a block's first row.
        """
        grouped = rows.reshape(*rows.shape[:2], self.groups, -1)
        base = self.base_kernel[side].reshape(self.taps, self.groups, -1)
        total = (base[0] + corrections[:, :, 0]) * grouped
        for tap in range(1, self.taps):
            shifted = mx.pad(grouped[:, :-tap], [(0, 0), (tap, 0), (0, 0), (0, 0)])
            total = total + (base[tap] + corrections[:, :, tap]) * shifted[:, : rows.shape[1]]
        return total.reshape(rows.shape)


class DFlash2Layer(DFlashLayer):
    """A layer whose two sublayers stand between convolutions.  Context rows are never convolved."""

    def __init__(self, config: DrafterConfig, layer: int) -> None:
        super().__init__(config, layer)
        assert config.dflash2 is not None
        self.attention_conv = GroupedConv(config.hidden_size, config.dflash2)
        self.mlp_conv = GroupedConv(config.hidden_size, config.dflash2)

    def with_attention(self, block: mx.array, attend: Sublayer) -> mx.array:
        block = block + self.attention_conv(self.input_layernorm(block), attend)
        return block + self.mlp_conv(self.post_attention_layernorm(block), self.mlp)


class DFlash2Drafter(DFlashDrafter):
    """A drafter of DFlash2Layers, with a selector of candidates."""

    layer_type = DFlash2Layer

    def __init__(self, config: DrafterConfig, taps: int) -> None:
        super().__init__(config, taps)
        assert config.dflash2 is not None
        assert config.vocab_size is not None
        self.candidate_selector = CandidateSelector(config.hidden_size, config.vocab_size, config.dflash2)
        self.known = config.dflash2.selector_vocab_size

    def logits(self, hidden: mx.array, head_of_target: Head) -> mx.array:
        logits = super().logits(hidden, head_of_target)
        if self.known is not None:  # tokens that the selector's tables say nothing of are no candidates
            logits[..., self.known :] = -mx.inf
        return logits
