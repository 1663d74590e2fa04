"""What an index finds is what a search through the texts finds, and it never holds more than it may."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.suffixes import END, ENOUGH, LONGEST, ORDERS, PLACES, SuffixIndex

# Few tokens make matches common; repeats make them longer than LONGEST.
TEXTS = st.builds(
    lambda head, body, times, tail: head + body * times + tail,
    *(st.lists(st.sampled_from([0, 1, 2, 3, END]), max_size=12) for _ in range(2)),
    st.integers(1, 8),
    st.lists(st.sampled_from([0, 1, 2, 3, END]), max_size=12),
)
CONTEXTS = st.lists(st.integers(0, 3), max_size=2 * LONGEST)


def search(text, context):
    """Every (match, token) whose token stands behind `match` >= 1 last tokens of the context, the latest first."""
    found = []
    for place in reversed(range(1, len(text))):
        most = min(place, len(context), LONGEST)
        match = next((m for m in range(most) if text[place - m - 1] != context[-m - 1]), most)
        if match and text[place] != END:
            found.append((match, text[place]))
    return found


@given(TEXTS, CONTEXTS, st.sampled_from([5, 9, 40, 1000]))
def test_followers_are_those_of_a_search_through_what_is_remembered(text, context, capacity):
    """All that are found stand there; none behind a longer match is left out for one behind a shorter."""
    found = SuffixIndex(text, capacity).followers(context)
    everything = search(text[-capacity:], context)
    for follower in set(found):
        assert found.count(follower) <= everything.count(follower)
    for order, places in zip(ORDERS, PLACES, strict=True):
        long = [follower for follower in everything if follower[0] >= order]
        if len(text) <= min(places, ENOUGH):
            assert sorted(f for f in found if f[0] >= order) == sorted(long)
    if everything and len(text) <= PLACES[-1]:
        assert max(found)[0] == max(everything)[0]


@given(TEXTS, CONTEXTS, st.sampled_from([5, 9, 40]))
def test_memory_is_bounded(text, context, capacity):
    """Tokens, places and entries; what is forgotten is not found."""
    index = SuffixIndex(text, capacity)
    assert index.token_ids() == text[-capacity:]
    assert len(index) == min(len(text), capacity)
    assert all(len(places) <= capacity for places in index._earlier)
    assert all(len(latest) <= capacity for latest in index._latest)
    forgotten = SuffixIndex([7, 7, 7, 7, 7, *[0, 1, 2, 3] * 20], 40)
    assert forgotten.followers([7, 7]) == []


@given(st.lists(TEXTS, max_size=5), CONTEXTS, st.sampled_from([7, 1000]))
def test_a_text_in_pieces_is_the_text_at_once(pieces, context, capacity):
    index = SuffixIndex(capacity=capacity)
    for piece in pieces:
        index.extend(piece)
    text = [token for piece in pieces for token in piece]
    assert index.added == len(text)
    assert index.followers(context) == SuffixIndex(text, capacity).followers(context)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.integers(4, 7), max_size=30))
def test_nothing_comes_from_a_text_that_was_not_added(text, context):
    """Nor from across the end of one."""
    assert SuffixIndex(text).followers(context) == []
    assert SuffixIndex([*text, END, 9]).followers([*text, 9]) == []
    assert all(token != 9 for _, token in SuffixIndex([*text, END, 9, 8]).followers(text))


def test_longer_matches_are_told_from_shorter_ones():
    index = SuffixIndex([1, 2, 3, 4, 9, 2, 5])
    assert sorted(index.followers([1, 2])) == [(1, 5), (2, 3)]


def test_a_common_token_does_not_cost_a_search_through_all_texts():
    index = SuffixIndex([1, 2] * 1000)
    assert len(index.followers([1])) <= sum(PLACES)
    assert len(index.followers([3, 1])) <= sum(PLACES)


def test_an_index_that_holds_no_match_is_refused():
    with pytest.raises(ValueError, match="too small"):
        SuffixIndex(capacity=4)
