"""The room that bodies share: what a request took is given back, whatever became of it."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from mlx_ddtree.server.bodies import BodyRoom, HeldBody
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.settings import RequestLimits

LIMITS = RequestLimits(body_bytes=100, unfinished_bytes=150, small_bytes=10)
PIECES = st.lists(st.integers(0, 60), max_size=6)


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_a_room_holds_what_its_bodies_have_beyond_their_small_beginning(bodies):
    """A piece that is refused takes no room, and a body that is released twice gives it back once."""
    room, held, taken = BodyRoom(LIMITS), [], []
    for pieces in bodies:
        body, size = HeldBody(room), 0
        with suppress(ApiError):
            for piece in pieces:
                body.grow(piece)
                size += piece
        held.append(body)
        taken.append(max(size - LIMITS.small_bytes, 0))
        assert room.used == sum(taken) <= LIMITS.unfinished_bytes
    for body, size in zip(held, list(taken), strict=True):
        body.release()
        body.release()
        taken.remove(size)
        assert room.used == sum(taken)
