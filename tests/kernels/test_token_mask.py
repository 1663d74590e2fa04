"""Masks of packed sets, in MLX and in numpy."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.token_mask import masked, masked_by_numpy


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("words", [1, 4])
def test_only_tokens_of_a_rows_set_keep_their_logits(vocab, words):
    """Sets may have more places than there are logits, or fewer: what a set does not name is not in it."""
    random = np.random.default_rng(vocab)
    allowed = random.random((3, 32 * words)) < 0.4
    packed = np.packbits(allowed, axis=1, bitorder="little").view(np.uint32)
    logits = random.normal(size=(3, vocab)).astype(np.float32)
    wide = np.zeros((3, max(vocab, 32 * words)), bool)
    wide[:, : 32 * words] = allowed
    expected = np.where(wide[:, :vocab], logits, -np.inf)
    np.testing.assert_array_equal(masked_by_numpy(logits, packed), expected)
    np.testing.assert_array_equal(np.array(masked(mx.array(logits), packed)), expected)
    assert masked(mx.array(logits).astype(mx.bfloat16), packed).dtype == mx.bfloat16
