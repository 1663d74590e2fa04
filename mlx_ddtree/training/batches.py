"""Batches: sequences of about one length, padded, in an order that is a function of the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.training.examples import Example

POOL = 16
"""Batches whose sequences are sorted by length together, so that little padding is computed."""


@dataclass(frozen=True)
class Batch:
    """Padded sequences.

    token_ids: (S, n) int32.
    lengths: (S,) int32, tokens of each sequence without the padding.
    starts: (S,) int32, first position a block may start at: the prompt's last token.
    """

    token_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    starts: NDArray[np.int32]

    def rows(self, which: slice) -> Batch:
        """Some of the sequences, padded to the longest of them."""
        lengths = self.lengths[which]
        return Batch(self.token_ids[which, : lengths.max()], lengths, self.starts[which])


def make_batch(examples: Sequence[Example]) -> Batch:
    """Sequences padded to the longest."""
    lengths = np.array([len(example.token_ids) for example in examples], np.int32)
    starts = np.array([example.start for example in examples], np.int32)
    token_ids = np.zeros((len(examples), lengths.max()), np.int32)
    for row, example in zip(token_ids, examples, strict=True):
        row[: len(example.token_ids)] = example.token_ids
    return Batch(token_ids, lengths, starts)


class BatchOrder:
    """Which sequences a step trains on; every epoch has its own random order.

    Each epoch is a function of the seed alone, so a resumed run sees the batches it would have seen.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """lengths: tokens of each sequence.  A batch larger than their number is all of them."""
        self.lengths = lengths
        self.batch_size = min(batch_size, len(lengths))
        self.batches_an_epoch = len(lengths) // self.batch_size
        self.seed = seed
        self._epoch = -1
        self._batches: list[list[int]] = []

    def batch(self, step: int) -> list[int]:
        """The sequences' places in `lengths`."""
        epoch, index = divmod(step, self.batches_an_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._batches = self._batches_of(epoch)
        return self._batches[index]

    def _batches_of(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self.seed, 2, epoch])

        # 1. A random order, in pools that are sorted by length.
        order = rng.permutation(len(self.lengths))
        pool = POOL * self.batch_size
        places: list[int] = []
        for first in range(0, len(order), pool):
            places += sorted((int(i) for i in order[first : first + pool]), key=lambda place: self.lengths[place])

        # 2. Cut into batches, which come in a random order again.
        batches = []
        for i in range(self.batches_an_epoch):
            batches.append(places[i * self.batch_size : (i + 1) * self.batch_size])
        return [batches[i] for i in rng.permutation(self.batches_an_epoch)]
