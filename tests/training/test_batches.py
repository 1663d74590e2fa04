"""Batches: padded, and every epoch shows every sequence, in an order that a resumed run finds again."""

from itertools import chain

import numpy as np
import pytest

from mlx_ddtree.training.batches import BatchOrder, make_batch
from mlx_ddtree.training.examples import DataError, Example, split_held_out, usable_examples


def test_batches_are_padded():
    batch = make_batch([Example((5, 6), (7, 8, 9)), Example((), (4, 5))])
    assert batch.token_ids.tolist() == [[5, 6, 7, 8, 9], [4, 5, 0, 0, 0]]
    assert (batch.lengths.tolist(), batch.starts.tolist()) == ([5, 2], [1, 0])


def test_every_epoch_shows_every_sequence():
    lengths = np.random.default_rng(0).integers(5, 50, 12).tolist()
    order = BatchOrder(lengths, 4, seed=0)
    first, second = ([order.batch(s) for s in range(e, e + 3)] for e in (0, 3))
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(12))
    assert first != second
    assert BatchOrder(lengths, 4, seed=0).batch(4) == second[1]  # whatever was asked before


def test_held_out_sequences_are_not_trained_on():
    examples = [Example((), (i, i)) for i in range(40)]
    training, held_out = split_held_out(examples, 0.1, 64, seed=0)
    assert len(held_out) == 4
    assert not set(training) & set(held_out)
    with pytest.raises(DataError, match="at least two"):
        split_held_out(examples[:1], 0.1, 64, seed=0)


def test_what_holds_no_block_is_left_out():
    kept = usable_examples([Example((1, 2), (3,)), Example((1,) * 8, (2, 3, 4)), Example((1,) * 9, (2, 3))], 10)
    assert kept == [Example((1,) * 8, (2, 3))]
    with pytest.raises(DataError, match="no training sequence"):
        usable_examples([Example((1, 2), (3,))])
    with pytest.raises(DataError, match=r"p.jsonl:1: .*--no-regenerate"):
        usable_examples([Example((1,), None, "p.jsonl:1")])
