"""Heads that score a token by the tokens before it in the draft: DSpark's Markov heads and Domino's recurrent cell.

They all add feature(path, h) . row(token) to a token's logit.  They differ in the feature, and in what of the path they
remember.  In symbols of arXiv 2607.05147 (DSpark) and 2605.29707 (Domino), e = W1[x], x the token before:

    vanilla   feature = e
    gated     feature = sigmoid(G [h; e]) * e
    rnn       [g, c, o] = J [s; e; h];  s' = sigmoid(g) s + (1 - sigmoid(g)) tanh(c);  feature = tanh(o)
    domino    s' = GRU(s, embedding of x);  feature = SiLU(P [h; s']), 0 at the first depths
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlx_ddtree.drafter.config import DominoConfig, DrafterConfig, MarkovConfig

Embed = Callable[[mx.array], mx.array]
"""From token ids (1, n) to embeddings (1, n, D)."""
TOP_K = 16
"""Candidates of a position: published trees of pairs have as many (arXiv 2608.02123)."""


class PathHead(nn.Module):
    """Shapes: P paths, r channels of a feature, s of a state (0 where nothing but the last token counts)."""

    top_k = TOP_K
    state_size = 0

    def step(
        self, state: mx.array, parents: mx.array, hidden: mx.array, depth: int, embed: Embed
    ) -> tuple[mx.array, mx.array]:
        """From states (P, s), the last tokens of paths (P,) and a position's hidden state (D,) to states behind those
        tokens and features (P, r).

        depth: the position's, from 0 behind the root.  embed: the target's embeddings, (1, P) -> (1, P, D).
        """
        raise NotImplementedError

    def rows(self, draft_ids: mx.array) -> mx.array:
        """(...) tokens by the numbers of the drafter's own vocabulary -> (..., r)."""
        raise NotImplementedError

    def bias(self, features: mx.array) -> mx.array:
        """(P, r) -> what is added to the logits of all tokens that the drafter can propose, (P, V)."""
        raise NotImplementedError


class MarkovHead(PathHead):
    """The vanilla head.  w1 knows the target's tokens, w2 those that can be proposed."""

    def __init__(self, config: DrafterConfig, shape: MarkovConfig) -> None:
        super().__init__()
        assert config.vocab_size is not None
        self.rank = shape.rank
        self.markov_w1 = nn.Embedding(config.vocab_size, shape.rank)
        self.markov_w2 = nn.Embedding(config.draft_vocab_size or config.vocab_size, shape.rank)

    def step(
        self, state: mx.array, parents: mx.array, hidden: mx.array, depth: int, embed: Embed
    ) -> tuple[mx.array, mx.array]:
        return self.from_embedding(state, self.markov_w1(parents), hidden)

    def from_embedding(self, state: mx.array, before: mx.array, hidden: mx.array) -> tuple[mx.array, mx.array]:
        """`step` with the embeddings (P, r) of the tokens before."""
        return state, before

    def rows(self, draft_ids: mx.array) -> mx.array:
        return self.markov_w2(draft_ids)

    def bias(self, features: mx.array) -> mx.array:
        return self.markov_w2.as_linear(features)


class GatedMarkovHead(MarkovHead):
    """A gate, which sees the position, on every channel."""

    def __init__(self, config: DrafterConfig, shape: MarkovConfig) -> None:
        super().__init__(config, shape)
        self.gate_proj = nn.Linear(config.hidden_size + shape.rank, shape.rank)

    def from_embedding(self, state: mx.array, before: mx.array, hidden: mx.array) -> tuple[mx.array, mx.array]:
        return state, mx.sigmoid(self.gate_proj(_joined(hidden, before))) * before


class RnnMarkovHead(MarkovHead):
    """A state that remembers the whole path."""

    def __init__(self, config: DrafterConfig, shape: MarkovConfig) -> None:
        super().__init__(config, shape)
        self.state_size = shape.rank
        self.joint_proj = nn.Linear(2 * shape.rank + config.hidden_size, 3 * shape.rank)

    def from_embedding(self, state: mx.array, before: mx.array, hidden: mx.array) -> tuple[mx.array, mx.array]:
        hidden = mx.broadcast_to(hidden, (len(before), hidden.shape[-1]))
        gate, new, out = mx.split(self.joint_proj(mx.concatenate([state, before, hidden], axis=-1)), 3, axis=-1)
        keep = mx.sigmoid(gate)
        return keep * state + (1 - keep) * mx.tanh(new), mx.tanh(out)


class DominoHead(PathHead):
    """A GRU without biases over the embeddings of the path; PyTorch's order of gates: reset, update, new."""

    def __init__(self, config: DrafterConfig, shape: DominoConfig) -> None:
        super().__init__()
        assert config.vocab_size is not None
        self.state_size = shape.cell_size
        self.uncorrected = shape.uncorrected
        self.input_gates = nn.Linear(config.hidden_size, 3 * shape.cell_size, bias=False)
        self.state_gates = nn.Linear(shape.cell_size, 3 * shape.cell_size, bias=False)
        self.squeeze = nn.Linear(config.hidden_size + shape.cell_size, shape.bottleneck, bias=False)
        self.widen = nn.Embedding(config.vocab_size, shape.bottleneck)

    def step(
        self, state: mx.array, parents: mx.array, hidden: mx.array, depth: int, embed: Embed
    ) -> tuple[mx.array, mx.array]:
        reset, update, new = mx.split(self.input_gates(embed(parents[None])[0]), 3, axis=-1)
        old_reset, old_update, old = mx.split(self.state_gates(state), 3, axis=-1)
        keep = mx.sigmoid(update + old_update)
        state = keep * state + (1 - keep) * mx.tanh(new + mx.sigmoid(reset + old_reset) * old)
        feature = nn.silu(self.squeeze(_joined(hidden, state)))
        return state, feature if depth >= self.uncorrected else mx.zeros_like(feature)

    def rows(self, draft_ids: mx.array) -> mx.array:
        return self.widen(draft_ids)

    def bias(self, features: mx.array) -> mx.array:
        return self.widen.as_linear(features)


def _joined(hidden: mx.array, other: mx.array) -> mx.array:
    """A position's hidden state (D,) in front of every row of (P, n) -> (P, D + n)."""
    return mx.concatenate([mx.broadcast_to(hidden, (len(other), hidden.shape[-1])), other], axis=-1)


MARKOV_HEADS: dict[str, type[MarkovHead]] = {"vanilla": MarkovHead, "gated": GatedMarkovHead, "rnn": RnnMarkovHead}


class ConfidenceHead(nn.Module):
    """How probably a draft is accepted at a depth, given that all before it were: sigmoid(proj [h; e])."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., size) -> (...) logits."""
        return self.proj(x)[..., 0]
