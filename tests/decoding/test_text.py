"""Where a text ends among stop strings, however its pieces come."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.decoding.text import StopStrings


def until_stop(stops, pieces):
    """What comes out of all pieces together, and whether a stop string was found."""
    strings = StopStrings(stops)
    text = "".join(strings.feed(piece) for piece in pieces)
    return text + strings.flush(), strings.found is not None


def test_of_two_stop_strings_in_a_piece_the_first_in_the_text_ends_it():
    """Whichever of them is named first."""
    for stops in (["END", "STOP"], ["STOP", "END"]):
        assert until_stop(stops, ["so STOP and END"]) == ("so ", True)


@given(stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), text=st.text("ab", max_size=8))
def test_letter_by_letter_a_text_ends_before_its_first_stop_string(stops, text):
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    want = text
    if ends:
        read = text[: min(ends)]  # no letter is looked at behind the first that completes a stop string
        want = read[: min(read.find(stop) for stop in stops if stop in read)]
    assert until_stop(stops, text) == (want, bool(ends))
