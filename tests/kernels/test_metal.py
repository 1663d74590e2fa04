"""The text of kernels."""

import re

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.kernels.metal import MetalKernel, metal_folder
from mlx_ddtree.target.rows import pack_bits


def test_a_repeated_line_is_written_for_every_array_and_moves_no_other():
    kernel = MetalKernel("gather_rows", (), (), repeat=12)
    body = kernel.text[1].split("\n")[1:]
    file = (metal_folder() / "gather_rows.metal").read_text().split("\n")
    repeated = [i for i, line in enumerate(file) if "$i" in line and not line.startswith("//")]
    assert repeated and len(body) == len(file)
    for i in repeated:
        assert re.findall(r"case (\d+): source = source_(\d+);", body[i]) == [(str(n), str(n)) for n in range(12)]
    assert [body[i] for i in range(1, len(file)) if i not in repeated] == [
        line for i, line in enumerate(file) if i and i not in repeated
    ]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65])
def test_packed_bits_are_the_mask(count):
    mask = np.random.default_rng(count).random((count, count)) < 0.3
    words = pack_bits(mask)
    assert words.dtype == np.uint32 and words.shape == (count, -(-count // 32))
    got = [[bool(words[t, a // 32] >> (a % 32) & 1) for a in range(count)] for t in range(count)]
    np.testing.assert_array_equal(got, mask)
    assert mx.array(words).dtype == mx.uint32
