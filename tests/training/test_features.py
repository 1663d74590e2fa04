"""States on the disk are what the target computes, divided by their channels' scales."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.training.batches import make_batch
from mlx_ddtree.training.examples import Example
from mlx_ddtree.training.features import FeatureStore, common_prefix
from mlx_ddtree.training.forward import target_features
from mlx_ddtree.training.start import channel_rms, take_sample

from .tiny import make_target

PROMPT = (3, 4, 5)
TAPS = (0, 2)


def sequences(count=4):
    return [Example((*PROMPT, 6 + i), tuple(10 + (i * j) % 7 for j in range(8 + i))) for i in range(count)]


def make_store(folder, most_bytes=1 << 30, examples=None):
    target = make_target()
    target.taps = TAPS
    examples = examples or sequences()
    scales = channel_rms(take_sample(target, examples).features)
    return target, FeatureStore(target, examples, folder, scales, most_bytes)


def check(target, store, places):
    batch = make_batch([store.examples[place] for place in places])
    token_ids = mx.array(batch.token_ids)
    features, hidden = store.batch(places, batch)
    expected = np.array(target_features(target, token_ids)) / store.scales
    final, _ = target.forward(token_ids, target.make_cache())
    for row, length in enumerate(batch.lengths):
        np.testing.assert_allclose(np.array(features)[row, :length], expected[row, :length], atol=4e-3, rtol=4e-3)
        np.testing.assert_allclose(np.array(hidden)[row, :length], np.array(final)[row, :length], atol=4e-3, rtol=4e-3)


@pytest.mark.parametrize("most_bytes", [1 << 30, 4000, 0], ids=["all", "some", "none"])
def test_states_are_the_targets_whether_stored_computed_or_both(tmp_path, most_bytes):
    target, store = make_store(tmp_path, most_bytes)
    check(target, store, [0, 1])
    check(target, store, [1, 2])
    check(target, store, [0, 1])
    assert store.done.sum() == min(store.kept, 3)


def test_a_second_run_reads_what_the_first_has_written(tmp_path):
    _, first = make_store(tmp_path)
    first.batch([0, 1, 2, 3], make_batch(first.examples))
    target, again = make_store(tmp_path)
    assert again.done.all()
    check(target, again, [0, 1, 2, 3])


def test_other_sequences_begin_anew(tmp_path):
    _, first = make_store(tmp_path)
    first.batch([0, 1], make_batch(first.examples[:2]))
    target, other = make_store(tmp_path, examples=[*sequences(3), Example(PROMPT, (9, 9, 9, 9))])
    assert not other.done.any()
    check(target, other, [2, 3])


def test_the_common_prefix_is_shorter_than_every_sequence():
    assert common_prefix(sequences()) == 3
    assert common_prefix([Example((1, 2), (3,)), Example((1, 2), (3,))]) == 2
    assert common_prefix([Example((1, 2), (3,)), Example((2, 2), (3,))]) == 0
