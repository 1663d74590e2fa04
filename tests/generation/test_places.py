"""Caches that cannot be cut go back to places that were kept: nothing is said otherwise, and the bound holds."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import Session
from mlx_ddtree.decoding.context import WHOLE, Coverage
from mlx_ddtree.generation.places import RUNG, Place, Places
from mlx_ddtree.server.sessions import Sessions

from ..helpers import interrupting
from ..talks import Talk, answer, talking_pair, tool, user

pair_of = cache(talking_pair)
FAMILIES = ["qwen3", "qwen3_5", "gpt_oss", "gemma4, shared keys"]
CANNOT_BE_CUT = ["qwen3_5", "qwen3_next", "gpt_oss", "gemma4, shared keys"]
OPTIONS = {"tree_budget": 4, "parity": "off"}
QUESTION = user("Which file holds the greeting and who calls it.")
HEADER = len("\nassistant\n")
"""Tokens of what begins an answer, the last place's distance from where the next turn departs."""


def responses(session, ids, n=6, **options):
    return list(session.stream(ids, n, **OPTIONS | options))


def said(session, ids, n=6, **options):
    return [token for response in responses(session, ids, n, **options) for token in response.tokens]


def fresh(pair, ids, n=6, **options):
    return said(Session(pair), ids, n, method="ar", **options)


def second_turn(pair, **template):
    """The prompts of two turns, of which the second has the first answer without its reasoning."""
    talk = Talk(pair, template=template)
    first = talk.ids(QUESTION)
    return first, talk.ids(answer("It is in greet.py."), user("And who calls main.py."))


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_turn_goes_on_where_the_last_answer_began(family, thinking):
    """Every number is that of a fresh session, bit for bit: both process the same chunks.

    Without trees, which would differ: the session remembers what it has said.
    """
    pair = pair_of(family)
    first, second = second_turn(pair, enable_thinking=thinking)
    session, other = Session(pair), Session(pair)
    said(session, first)
    shared = session.shared(second)
    assert shared < len(first) - 1
    got, want = (responses(s, second, tree_budget=0) for s in (session, other))
    assert other.reused == 0
    assert session.reused == shared - (0 if family == "qwen3" else HEADER)
    assert [r.tokens for r in got] == [r.tokens for r in want]
    if family != "qwen3":  # whose rows are cut wherever a prompt departs, as mlx-lm cuts them
        assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("family", CANNOT_BE_CUT)
def test_a_turn_after_tools_goes_on_where_its_reasoning_is_taken_out(family):
    pair = pair_of(family)
    talk, session = Talk(pair), Session(pair)
    ids = talk.ids(QUESTION)
    asked = len(ids)
    for _ in range(3):
        thought = talk.text(said(session, ids))
        ids = talk.ids(answer("I look.", thought), tool("greet.py defines greet. main.py calls it. " * 2))
    said(session, ids)
    ids = talk.ids(answer("It is in greet.py.", "none"), user("And who calls main.py."))
    assert said(session, ids) == fresh(pair, ids)
    assert session.reused == asked - 1 - HEADER - len("t\n") + 1


@pytest.mark.parametrize("family", FAMILIES)
def test_another_conversation_begins_behind_the_system_prompt(family):
    pair = pair_of(family)
    sessions = Sessions(pair, 10, 2**30)
    for question in ("Which file holds the greeting.", "Rename it.", "Delete it."):
        ids = Talk(pair).ids(user(question))
        session = sessions.take(ids)
        assert said(session, ids) == fresh(pair, ids)
        if question != "Which file holds the greeting.":
            assert len(ids) - session.reused < 60
            assert session.found_in == ("memory" if family == "qwen3" else "place")
    assert len(sessions) == 3


@pytest.mark.parametrize("family", CANNOT_BE_CUT)
def test_places_of_a_text_that_is_gone_are_forgotten(family):
    """The second prompt has none of its own where the first one had, and the third begins like the second."""
    pair, long = pair_of(family), "It holds a greeting and a farewell. " * 12
    session = Session(pair)
    short = Talk(pair).ids(
        QUESTION, answer("In greet.py."), user("Thanks and good bye for now."), answer("Bye."), QUESTION
    )
    for ids in (short, Talk(pair).ids(user(long)), Talk(pair).ids(user(long[:300] + "No."))):
        assert said(session, ids) == fresh(pair, ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_goes_on_in_its_own_session(family):
    """Taking back what asked for the last answer takes nothing from another conversation."""
    pair = pair_of(family)
    sessions = Sessions(pair, 10, 2**30)
    for ids in second_turn(pair):
        said(sessions.take(ids), ids)
    assert len(sessions) == 1


@pytest.mark.parametrize("family", ["qwen3_5", "gpt_oss"])
def test_a_place_is_kept_where_an_earlier_prompt_departed(family):
    """The first prompt that departs there pays for it; the next one does not."""
    pair = pair_of(family)
    text = np.random.default_rng(3).integers(5, 55, 700).tolist()
    sessions = Sessions(pair, 10, 2**30)
    reused = []
    for shared in (700, 400, 390, 385):
        ids = [*text[:shared], shared % 50 + 2, *text[:80]]
        session = sessions.take(ids)
        assert said(session, ids, prefill_step_size=64) == fresh(pair, ids, prefill_step_size=64)
        reused.append(session.reused)
    assert reused == [0, 0, 384, 384]


@pytest.mark.slow
def test_long_texts_have_places_on_the_way():
    pair = pair_of("llama, windows")
    session = Session(pair)
    ids = np.random.default_rng(4).integers(5, 55, RUNG + 600).tolist()
    said(session, ids, 1, prefill_step_size=2048, method="ar")
    assert [place.tokens for place in session.places] == [RUNG, len(ids) - 1]


@settings(max_examples=5)
@given(st.data())
def test_any_traffic_says_what_fresh_sessions_say(data):
    """Conversations go on, part and begin anew, in sessions with much room for places, with little and with none."""
    family = data.draw(st.sampled_from(["qwen3_5", "gpt_oss"]))
    pair, one = pair_of(family), place_bytes(family)
    sessions = [Session(pair, places_bytes=room) for room in (0, 2 * one, 2**30)]
    messages = [user("Where is it. " * 4), answer("In greet.py. " * 3), user("And main. " * 3), tool("Not found. " * 3)]
    talk = Talk(pair)
    for _ in range(data.draw(st.integers(1, 4))):
        kept = talk.messages[: data.draw(st.integers(1, len(talk.messages)))]
        talk = Talk(pair, kept, {"preserve_thinking": data.draw(st.booleans())})
        ids = talk.ids(*data.draw(st.lists(st.sampled_from(messages), min_size=1, max_size=3)))
        want = fresh(pair, ids, 3)
        shared = [session.shared(ids) for session in sessions]
        for session, most in zip(sessions, shared, strict=True):
            assert said(session, ids, 3) == want
            assert session.reused <= most
            assert session.places.nbytes <= session.places_bytes
            assert all(place.tokens < len(session.token_ids) for place in session.places)
        assert sessions[0].reused <= sessions[1].reused <= sessions[2].reused


@cache
def place_bytes(family):
    session = Session(pair_of(family))
    said(session, Talk(session.pair).ids(QUESTION), 1)
    return max(place.nbytes for place in session.places)


@pytest.mark.parametrize("family", ["qwen3_5", "gpt_oss"])
@pytest.mark.parametrize("at", range(4))
def test_an_interrupt_between_chunks_leaves_no_place_half_made(family, at):
    pair = pair_of(family)
    session = Session(pair)
    first, second = second_turn(pair)
    said(session, first)
    interrupt, _ = interrupting(at)
    with pytest.raises(KeyboardInterrupt):
        said(session, second, prompt_progress_callback=interrupt, prefill_step_size=32)
    assert all(place.tokens <= len(session.token_ids) for place in session.places)
    assert said(session, second) == fresh(pair, second)


@pytest.mark.parametrize("family", CANNOT_BE_CUT)
def test_a_fork_has_its_origins_places(family):
    pair = pair_of(family)
    session = Session(pair)
    first, second = second_turn(pair)
    said(session, first)
    other = session.fork(second)
    assert 0 < len(other.token_ids) <= len(first)
    assert said(other, second) == said(session, second) == fresh(pair, second)


@pytest.mark.parametrize("window", [16, 64])
def test_a_limited_caches_places_are_those_of_its_ring(window):
    pair = pair_of("qwen3")
    session = Session(pair)
    first, second = second_turn(pair)
    said(session, first, max_kv_size=window)
    got = said(session, second, max_kv_size=window)
    assert session.reused > len(first) // 2
    assert got == fresh(pair, second, max_kv_size=window)


def test_a_ring_that_has_read_a_long_chunk_keeps_its_window():
    pair = pair_of("gpt_oss")
    session = Session(pair)
    said(session, Talk(pair).ids(QUESTION), 1)
    for place in session.places:
        widths = {keys.shape[2] for keys, *_ in place.mark if isinstance(keys, mx.array)}
        assert widths == {12}


def places_at(*tokens, most_bytes, anchors=(), size=100):
    places = Places(most_bytes)
    for at in tokens:
        places.add(Place(at, [(mx.zeros(size, mx.uint8),)], WHOLE, at in anchors))
        assert places.nbytes <= most_bytes
    return [place.tokens for place in places]


def test_places_lie_closer_near_the_end():
    kept = places_at(*range(100, 6500, 100), most_bytes=800)
    gaps = [b - a for a, b in zip([0, *kept], kept, strict=False)]
    assert kept[-1] == 6400 and len(kept) == 8
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 4 * gaps[-1]


def test_anchors_go_last():
    assert places_at(100, 5000, 5100, 5200, 9000, most_bytes=200, anchors=[100]) == [100, 9000]
    assert places_at(100, 5000, most_bytes=99) == []


def test_what_holds_nothing_is_no_place():
    places = Places(1000)
    places.add(Place(5, [(7,)], WHOLE))
    assert len(places) == 0


def test_a_filter_takes_the_places_whose_rows_it_took():
    places = Places(1000)
    places.add(Place(5, [(mx.zeros(4),)], WHOLE))
    assert places.before(9, WHOLE) is not None
    assert places.before(9, Coverage(filtered=3)) is None
    assert places.before(4, WHOLE) is None
