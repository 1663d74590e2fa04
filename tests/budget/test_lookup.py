"""A copy is what followed the longest match among the last places, as a search through the whole text finds it."""

from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.lookup import LONGEST, PLACES, SHORTEST, LookupIndex

# Few tokens make matches common; repeats make them longer than LONGEST.
TEXTS = st.builds(
    lambda head, body, times, tail: head + body * times + tail,
    *(st.lists(st.integers(0, 3), max_size=12) for _ in range(2)),
    st.integers(1, 8),
    st.lists(st.integers(0, 3), max_size=12),
)


def search(text, length):
    """(token_ids, match) of the best earlier occurrence of the text's end, or None."""
    end, matches = len(text), {}
    for place in range(SHORTEST, end):
        match = next((m for m in range(place) if text[place - m - 1] != text[end - m - 1]), place)
        if match >= SHORTEST:
            matches[place] = min(match, LONGEST)
    if not matches:
        return None
    best = max(sorted(matches)[-PLACES:], key=lambda place: (matches[place], place))
    longer = list(text)
    for i in range(length):
        longer.append(longer[best + i])
    return longer[end:], matches[best]


@given(TEXTS, st.integers(0, 40))
def test_continuation_equals_a_search_through_the_text(text, length):
    copy = LookupIndex(text).continuation(length)
    assert (copy and (list(copy.token_ids), copy.match)) == search(text, length)


@given(st.lists(st.lists(st.integers(0, 2), max_size=7), max_size=8))
def test_a_text_in_pieces_is_the_text_at_once(pieces):
    index = LookupIndex()
    for piece in pieces:
        index.extend(piece)
    text = [token for piece in pieces for token in piece]
    assert len(index) == len(text)
    assert index.continuation(9) == LookupIndex(text).continuation(9)


@given(st.lists(st.integers(), min_size=1, max_size=9, unique=True), st.integers(2, 40), st.integers(1, 50))
def test_a_periodic_text_goes_on_periodically(pattern, more, length):
    """Also beyond the text's end, where there is nothing left to copy."""
    seen = len(pattern) + more
    (*text,) = islice(cycle(pattern), seen)
    assert LookupIndex(text).continuation(length).token_ids == [*islice(cycle(pattern), seen, seen + length)]


@pytest.mark.parametrize(("between", "match"), [(PLACES - 1, 4), (PLACES, SHORTEST)])
def test_only_the_last_few_places_are_compared(between, match):
    """A common pair of tokens must not cost a search through the whole text."""
    once = [9, 8, 1, 2]
    text = once + [token for i in range(between) for token in (100 + i, 1, 2)] + once
    assert LookupIndex(text).continuation(8).match == match


@given(st.lists(st.integers(), max_size=20, unique=True))
def test_nothing_is_found_where_nothing_repeats(text):
    """Also in texts shorter than the shortest match; one common token is too little."""
    assert LookupIndex(text).continuation(8) is None
    assert LookupIndex([*text, *text[:1]]).continuation(8) is None
