"""Prompt caches kept between requests: nothing is said otherwise, and no conversation costs another its cache."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import stream_generate
from mlx_ddtree.server.sessions import Sessions

from .. import families, helpers

tiny_pair, small_pair = cache(families.tiny_pair), cache(helpers.small_pair)
FAMILIES = ["qwen3", "qwen3_5", "gpt_oss"]
LONG = list(range(4, 44))


def answer(sessions, ids, n=6, **options):
    session = sessions.take(ids)
    said = [t for r in session.stream(ids, n, **options) for t in r.tokens]
    sessions.trim()
    return said, session.reused


def fresh(pair, ids, n=6):
    return [t for r in stream_generate(pair, ids, n, method="ar") for t in r.tokens]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_that_diverges_early_leaves_a_long_conversation_alone(family):
    pair = tiny_pair(family)
    sessions = Sessions(pair, 10, 2**30)
    said, _ = answer(sessions, LONG)
    other = [*LONG[:10], 50, 51]
    assert answer(sessions, other)[0] == fresh(pair, other)
    following = [*LONG, *said, 9, 10]
    assert answer(sessions, following) == (fresh(pair, following), len(LONG) + len(said))
    assert len(sessions) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_two_conversations_in_turn_are_processed_once(family):
    pair = tiny_pair(family)
    sessions, talks = Sessions(pair, 10, 2**30), [LONG[:20], [*LONG[:8], 50, 51, 52]]
    for turn in range(3):
        for i, ids in enumerate(talks):
            said, reused = answer(sessions, ids)
            assert said == fresh(pair, ids)
            assert turn == 0 or reused == len(ids) - 2
            talks[i] = [*ids, *said, 5 + turn, 6]
    assert len(sessions) == 2


def test_a_shared_beginning_is_copied():
    """A system prompt is processed once, however many conversations begin with it."""
    pair = small_pair()
    sessions = Sessions(pair, 10, 2**30)
    for tail in (50, 51, 52):
        ids = [*LONG, tail, 7]
        said, reused = answer(sessions, ids)
        assert said == fresh(pair, ids)
        assert reused == (0 if tail == 50 else len(LONG))
    assert len(sessions) == 3
    assert answer(sessions, [*LONG, 50, 7])[1] == len(LONG) + 1


def test_the_last_answer_is_made_again_in_place():
    sessions = Sessions(small_pair(), 10, 2**30)
    first = answer(sessions, LONG)[0]
    assert answer(sessions, LONG) == (first, len(LONG) - 1)
    assert len(sessions) == 1


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(4, 60), min_size=1, max_size=6)), max_size=12))
def test_any_traffic_within_the_bounds(traffic):
    """Requests begin like one of a few prompts and go on as they like; caches come and go."""
    pair = small_pair()
    one = 2 * answer_bytes()
    sessions = Sessions(pair, 3, one * 2)
    for which, tail in traffic:
        ids = [*LONG[: 10 * which], *tail]
        assert answer(sessions, ids, 3, tree_budget=4)[0] == fresh(pair, ids, 3)
        assert len(sessions) <= 3 and sessions.nbytes <= sessions.max_bytes


@cache
def answer_bytes():
    sessions = Sessions(small_pair(), 1, 2**30)
    answer(sessions, LONG)
    return sessions.nbytes


def test_the_longest_unused_goes_first():
    pair = small_pair()
    sessions = Sessions(pair, 2, 2**30)
    for first in (50, 51, 50, 52):  # 51 is the longest unused when 52 comes
        answer(sessions, [first, *LONG])
    assert answer(sessions, [50, *LONG])[1] > 0
    assert answer(sessions, [51, *LONG])[1] == 0


def test_a_bound_below_one_session_keeps_none():
    pair = small_pair()
    for sessions in (Sessions(pair, 10, 1000), Sessions(pair, 0, 2**30)):
        assert answer(sessions, LONG) == (fresh(pair, LONG), 0)
        assert len(sessions) == sessions.nbytes == 0
