"""What is put away comes back bit for bit, and leaves nothing behind."""

import resource
import signal
from copy import deepcopy

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree.errors import OptionError
from mlx_ddtree.icecache.store import ColdRows

DTYPES = [mx.float32, mx.float16, mx.bfloat16]


def rows(rng, count, heads=2, dims=(8, 4), dtype=mx.float32):
    return tuple(mx.array(rng.standard_normal((1, heads, count, dim)), dtype) for dim in dims)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and bool(mx.array_equal(a, b))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.sampled_from(DTYPES), st.integers(0, 99))
def test_rows_come_back(tmp_path_factory, pieces, dtype, seed):
    rng = np.random.default_rng(seed)
    stored = [rows(rng, count, dtype=dtype) for count in pieces]
    cold = ColdRows(tmp_path_factory.getbasetemp(), *stored[0])
    for piece in stored:
        cold.append(*piece)
    whole = [mx.concatenate(parts, axis=2) for parts in zip(*stored, strict=True)]
    assert all(same(a, b) for a, b in zip(cold.everything(), whole, strict=True))
    assert cold.nbytes == sum(x.nbytes for x in whole)
    places = mx.array(rng.integers(0, sum(pieces), (2, 3, 5)).astype(np.int32))
    for got, x in zip(cold.take(places), whole, strict=True):
        wide = mx.broadcast_to(x, (3, *x.shape[1:]))
        assert same(got, mx.take_along_axis(wide, places.swapaxes(0, 1)[..., None], axis=2))


def test_no_file_is_left_in_the_folder(tmp_path):
    rng = np.random.default_rng(0)
    piece = rows(rng, 50)
    cold = ColdRows(tmp_path, *piece)
    cold.append(*piece)
    assert not list(tmp_path.iterdir())  # and so not after a crash either


def test_a_copy_is_apart(tmp_path):
    rng = np.random.default_rng(0)
    first, second, third = rows(rng, 5), rows(rng, 6), rows(rng, 6)
    cold = ColdRows(tmp_path, *first)
    cold.append(*first)
    copy = deepcopy(cold)
    cold.append(*second)
    copy.append(*third)
    assert same(cold.everything()[0][:, :, 5:], second[0])
    assert same(copy.everything()[0][:, :, 5:], third[0])
    cold.truncate(5)
    assert same(cold.everything()[0], first[0])


def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    first, much = rows(rng, 4), rows(rng, 4000)
    cold = ColdRows(tmp_path, *first)
    cold.append(*first)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OptionError, match="free some space"):
            cold.append(*much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert same(cold.everything()[0], first[0])
    cold.append(*much)
    assert same(cold.everything()[1][:, :, 4:], much[1])


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(OptionError, match="does not take"):
        ColdRows(tmp_path / "missing", *rows(np.random.default_rng(0), 1))
