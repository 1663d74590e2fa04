"""What is recalled depends on the whole path, promises no more than one token a place, and comes from given texts only."""

from itertools import cycle, islice

from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.budget.recall import WIDTH, Recall
from mlx_ddtree.budget.suffixes import LONGEST, SuffixIndex

TOKENS = st.lists(st.integers(0, 4), max_size=60)


@given(TOKENS, TOKENS, st.lists(st.integers(0, 4), max_size=4))
def test_chances_of_a_place_add_up_to_less_than_one(text, other, path):
    place = Recall(text, [SuffixIndex(other)]).next()
    for token in path:
        if place is None:
            return
        assert sum(place.chances) < 1
        assert place.chances == sorted(place.chances, reverse=True)
        assert len(set(place.token_ids)) == len(place.token_ids) == len(place.matches) == len(place.chances) <= WIDTH
        place = place.after(token)


@given(TOKENS, TOKENS, st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_a_path_is_looked_up_as_if_it_stood_in_the_text(text, other, path):
    """Conditioned on all of it, not on its last token."""
    memory = [SuffixIndex(other)]
    place = Recall(text, memory).next()
    if place is None:
        return
    for token in path:
        place = place.after(token)
    fresh = Recall([], memory)
    fresh.sources = [(SuffixIndex(text), fresh.sources[0][1]), fresh.sources[1]]
    fresh._end = [*text, *path][-LONGEST:]
    again = fresh.next()
    assert place.token_ids == ([] if again is None else again.token_ids)
    assert again is None or (place.chances, place.matches) == (again.chances, again.matches)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9, unique=True), st.integers(2, 40), st.integers(1, 50))
def test_a_periodic_text_goes_on_periodically(pattern, more, length):
    """Also beyond the text's end, where there is nothing left to copy."""
    seen = 2 * len(pattern) + more
    (*text,) = islice(cycle(pattern), seen)
    assert Recall(text).next().best_path(length) == [*islice(cycle(pattern), seen, seen + length)]


@given(st.lists(st.integers(), max_size=20, unique=True).map(lambda text: [abs(token) % (1 << 20) for token in text]))
def test_nothing_is_recalled_where_nothing_repeats(text):
    text = list(dict.fromkeys(text))
    assert Recall(text).next() is None


def test_longer_matches_and_the_text_itself_weigh_more():
    other = SuffixIndex([1, 2, 3, 4, 8])
    assert Recall([9, 4, 7, 1, 2, 3, 4], [other]).next().token_ids == [8, 7]
    assert Recall([9, 1, 2, 3, 4, 7, 1, 2, 3, 4], [other]).next().token_ids[0] == 7


def test_a_text_is_read_piece_by_piece():
    recall = Recall()
    text = [1, 2, 3, 1, 2]
    for length in range(len(text) + 1):
        recall.read(text[:length])
    recall.read(text)
    assert recall.next().token_ids[0] == 3
    assert recall.text.added == len(text)
