"""A target whose forwards of several rows round more coarsely than those of one row, as kernels do on a GPU.

This machine's own kernels differ by 1e-5 at most, so near ties would never show.
"""

from mlx_ddtree.target.dense import DenseTarget


class _Rounded:
    """Stands in for a decoder layer: its output keeps `bits` bits wherever there are several rows."""

    def __init__(self, layer, bits):
        self.layer, self.self_attn = layer, layer.self_attn
        self.factor = float(2 ** (24 - bits) + 1)

    def __call__(self, hidden, mask, cache):
        hidden = self.layer(hidden, mask, cache)
        if hidden.shape[1] == 1:
            return hidden
        scaled = hidden * self.factor  # Veltkamp's splitting
        return scaled - (scaled - hidden)


def round_blocks(target: DenseTarget, bits: int) -> DenseTarget:
    """Let the forwards of several rows keep `bits` bits between layers; in place."""
    inner = target.model.model
    inner.layers = [_Rounded(layer, bits) for layer in inner.layers]
    return target
