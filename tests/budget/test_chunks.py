"""Chunks of prompts are as large as they may be, and no larger than their seconds allow."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.chunks import FIRST, LEAST, ChunkPace


def test_without_a_bound_on_seconds_chunks_have_their_size():
    pace = ChunkPace()
    pace.took(0, 2048, 100.0)
    assert pace.size(0, 2048, None) == 2048


def test_the_first_chunk_is_small_and_the_next_ones_follow_it():
    pace = ChunkPace()
    assert pace.size(0, 2048, 4.0) == FIRST
    pace.took(0, FIRST, FIRST * 0.001)
    assert pace.size(FIRST, 2048, 4.0) == 2048
    assert pace.size(FIRST, 2048, 1.1) == 1024


def test_long_contexts_have_seconds_of_their_own():
    pace = ChunkPace()
    pace.took(1000, 1024, 1.0)
    pace.took(100_000, 1024, 16.0)
    assert pace.size(0, 2048, 4.0) == 2048
    assert pace.size(50_000, 2048, 4.0) == 2048
    assert pace.size(120_000, 2048, 4.0) == 256


def test_one_slow_chunk_is_forgotten():
    pace = ChunkPace()
    pace.took(0, 1024, 300.0)
    for _ in range(10):
        pace.took(0, 64, 0.1)
    assert pace.size(0, 2048, 4.0) == 2048


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 4096), st.floats(0, 1e3))),
    st.integers(0, 10**6),
    st.integers(1, 8192),
)
def test_a_chunk_is_never_empty_and_never_larger_than_asked(chunks, before, most):
    pace = ChunkPace()
    for chunk in chunks:
        pace.took(*chunk)
    assert min(most, LEAST) <= pace.size(before, most, 0.5) <= most
