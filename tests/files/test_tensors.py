"""A file of tensors is what was written, or refused; other programs read it too."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_ddtree.files.tensors import Tensor, TensorFile, read_facts, read_tensors, write_tensors

HELD = TensorFile(
    {"kind": "rows", "name": "ä"},
    {
        "a": Tensor("F32", np.arange(12, dtype=np.float32).reshape(3, 4)),
        "b.0": Tensor("BF16", np.arange(5, dtype=np.uint16)),
        "none": Tensor("I32", np.zeros((2, 0), np.int32)),
    },
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        write_tensors(file, HELD)
    return path


def test_what_was_written_is_read(path):
    held = read_tensors(path)
    assert held.facts == HELD.facts == read_facts(path)
    for name, tensor in HELD.tensors.items():
        assert held.tensors[name].kind == tensor.kind
        np.testing.assert_array_equal(held.tensors[name].values, tensor.values)


def test_mlx_reads_it(path):
    arrays = mx.load(str(path))
    assert arrays["a"].tolist() == HELD.tensors["a"].values.tolist()
    assert arrays["b.0"].dtype == mx.bfloat16


def test_no_byte_can_change_unseen(path):
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError):
            read_tensors(path)


def test_no_end_can_be_missing(path):
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError):
            read_tensors(path)
