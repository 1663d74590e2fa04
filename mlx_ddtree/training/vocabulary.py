"""The head's rows of one training step: frequent tokens, the step's labels, and a random sample that stands for the
rest.

The target's head over a whole vocabulary is three quarters of a small drafter's step.  A softmax over part of the
vocabulary, with log(tail / sample) added to the sampled logits, has the whole one's normaliser in expectation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.target import TreeTarget
from mlx_ddtree.training.examples import Example

FREQUENT = 4096
"""Of a step's rows, those of the answers' most frequent tokens: they cover nine in ten of what is said."""
SAMPLED = 512
"""Rows that stand for all other tokens."""


@dataclass(frozen=True)
class HeadRows:
    """Part of a head.

    tokens: (R,) int32.  matrix: (R, D).  bias: (R,), added to logits.
    index: (V,) int32, a token's row; -1 where it has none.
    """

    tokens: mx.array
    matrix: mx.array
    bias: mx.array
    index: NDArray[np.int32]

    def logits(self, hidden: mx.array) -> mx.array:
        """(n, D) -> (n, R) before caps and bias."""
        return hidden @ self.matrix.T


class Vocabulary:
    """Chooses every step's rows of the head of `target`, by what the answers in `examples` say."""

    def __init__(self, target: TreeTarget, examples: Sequence[Example]) -> None:
        counts: Counter[int] = Counter()
        for example in examples:
            counts.update(example.token_ids[example.start + 1 :])
        self.target = target
        self.size = target.vocab_size
        self.frequent = np.array(sorted(token for token, _ in counts.most_common(FREQUENT)), np.int64)
        self.is_reduced = self.size > 2 * (FREQUENT + SAMPLED) and target.head_rows(mx.array([0])) is not None

    def rows(self, labels: NDArray[np.int32], rng: np.random.Generator) -> HeadRows | None:
        """The rows of a step with such labels; None where the whole head is used."""
        if not self.is_reduced:
            return None
        sure = np.union1d(self.frequent, labels.reshape(-1))
        drawn = np.setdiff1d(rng.choice(self.size, SAMPLED, replace=False), sure)
        tokens = np.concatenate([sure, drawn])
        index = np.full(self.size, -1, np.int32)
        index[tokens] = np.arange(len(tokens))
        bias = np.zeros(len(tokens), np.float32)
        bias[len(sure) :] = math.log((self.size - len(sure)) / max(len(drawn), 1))
        places = mx.array(tokens.astype(np.int32))
        matrix = self.target.head_rows(places)
        assert matrix is not None, "a head that had rows has them"
        return HeadRows(places, mx.stop_gradient(matrix.astype(mx.float32)), mx.array(bias), index)
