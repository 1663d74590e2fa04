"""DFlash 2's selector: scores of pairs of neighbouring tokens, which a block drafted in one pass does not know.

Formulas as in the public integrations (vLLM pull request 52816, SpecForge 772).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.config import DFlash2Config


class CandidateSelector(nn.Module):
    """How well a token follows another at a position, as a correction of the head's logits.

    edge(parent, child) = sum over r of P[parent, r] * (W h)[r] * S[child, r], h the position's hidden state.
    """

    def __init__(self, hidden_size: int, vocab_size: int, shape: DFlash2Config) -> None:
        super().__init__()
        self.top_k = shape.selector_top_k
        self.predecessor_codebook = nn.Embedding(vocab_size, shape.selector_rank)
        self.successor_codebook = nn.Embedding(vocab_size, shape.selector_rank)
        self.hidden_projection = nn.Linear(hidden_size, shape.selector_rank, bias=False)

    def scores(self, parents: mx.array, hidden: mx.array, children: mx.array) -> mx.array:
        """parents (..., P), hidden (..., D), children (..., K) -> edges (..., P, K) float32."""
        gated = self.predecessor_codebook(parents) * self.hidden_projection(hidden)[..., None, :]
        return (gated @ self.successor_codebook(children).swapaxes(-1, -2)).astype(mx.float32)

    def edges(self, root: mx.array, hidden: mx.array, candidates: mx.array) -> mx.array:
        """All pairs of neighbouring positions' candidates.

        root (...): the token before position 0.  hidden (..., L, D), candidates (..., L, K).
        Returns (..., L, K, K) float32: [d, r, c] is candidate c of position d after candidate r of position
        d - 1; at position 0 after the root, whatever r.
        """
        first = mx.broadcast_to(root[..., None, None], (*candidates.shape[:-2], 1, candidates.shape[-1]))
        parents = mx.concatenate([first.astype(candidates.dtype), candidates[..., :-1, :]], axis=-2)
        return self.scores(parents, hidden, candidates)
