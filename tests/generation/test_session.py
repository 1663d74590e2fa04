"""A session processes nothing twice, and says the same as without it."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_ddtree import Session, generate, make_sampler, stream_generate
from mlx_ddtree.errors import PromptError

from .. import families, helpers

tiny_pair, small_pair = cache(families.tiny_pair), cache(helpers.small_pair)  # measured once

TOKENS = st.lists(st.integers(4, 60), min_size=1, max_size=12)


def answer(session, ids, n=12, **options):
    return [t for r in session.stream(ids, n, **options) for t in r.tokens]


def fresh(pair, ids, n=12, **options):
    return [t for r in stream_generate(pair, ids, n, **options) for t in r.tokens]


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "qwen3_next", "gpt_oss", "gemma4, shared keys"])
def test_turns_of_a_conversation_are_processed_once(family):
    pair = tiny_pair(family)
    session, ids = Session(pair), list(range(5, 30))
    for turn in range(3):
        ids = [*ids, 7 + turn, 9]
        said = answer(session, ids)
        assert said == fresh(pair, ids)
        assert session.token_ids == [*ids, *said]
        ids = [*ids, *said]
    assert session.reused == len(session.token_ids) - 2 - 12


@pytest.mark.parametrize(("family", "reused"), [("qwen3", 29), ("qwen3_5", 24), ("gpt_oss", 24)])
def test_an_earlier_turn_that_changed_is_processed_again_from_there(family, reused):
    """Caches that cannot be trimmed go back to the end of the last prompt."""
    pair = tiny_pair(family)
    session, ids = Session(pair), list(range(5, 30))
    said = answer(session, ids)
    changed = [*ids, *said[:4], (said[4] + 1) % 60, 9, 10]
    assert answer(session, changed) == fresh(pair, changed)
    assert session.reused == reused
    other = [50, 51, 52]
    assert answer(session, other) == fresh(pair, other)
    assert session.reused == 0


@settings(max_examples=25)
@given(st.lists(TOKENS, min_size=1, max_size=5), st.data())
def test_any_sequence_of_prompts(prompts, data):
    """Each is a beginning of what went before, and something else."""
    pair = small_pair()
    session, before = Session(pair), []
    for prompt in prompts:
        ids = [*before[: data.draw(st.integers(0, len(before)))], *prompt]
        said = answer(session, ids, 5, tree_budget=4)
        assert said == fresh(pair, ids, 5, method="ar")
        before = session.token_ids
        assert before == [*ids, *said]


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_a_prompt_that_the_caches_hold_whole_is_answered_again(family):
    """Its last token is processed once more: that says the answer's first one."""
    pair = tiny_pair(family)
    session, ids = Session(pair), list(range(5, 30))
    said = answer(session, ids)
    assert answer(session, ids) == said
    assert session.reused == len(ids) - 1
    assert answer(session, [*ids, *said]) == fresh(pair, [*ids, *said])


def test_the_end_of_a_prompt_that_is_taken_back_is_forgotten():
    """A server keeps the sessions whose prompt it would take apart; what is gone already is no reason to."""
    session, ids = Session(tiny_pair("qwen3")), list(range(5, 30))
    answer(session, ids)
    assert session.keeps_prompt(len(ids) - 1)
    assert not session.keeps_prompt(10)
    session.resume([*ids[:10], 50, 51])
    assert session.token_ids == ids[:10]
    assert session.keeps_prompt(10)


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "gpt_oss"])
def test_an_answer_that_is_given_up_goes_on_from_there(family):
    pair = tiny_pair(family)
    session, ids = Session(pair), list(range(5, 30))
    stream = session.stream(ids, 100)
    heard = [*next(stream).tokens, *next(stream).tokens]
    stream.close()
    assert session.token_ids == [*ids, *heard]
    longer = [*ids, *heard, 3, 4]
    assert answer(session, longer) == fresh(pair, longer)
    assert session.reused == len(ids) + len(heard)


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "gpt_oss"])
@pytest.mark.parametrize("chunks", [0, 2, 5])
def test_an_interrupt_in_the_prompt_keeps_what_was_done(family, chunks):
    pair = tiny_pair(family)
    session, ids = Session(pair), list(range(5, 45))

    def interrupt(done, total):
        if done >= chunks * 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer(session, ids, prefill_step_size=8, prompt_progress_callback=interrupt)
    assert session.token_ids[:40] == ids[: len(session.token_ids)]
    assert len(session.token_ids) == (chunks * 8 if chunks < 5 else 41)  # the first token is decided by then
    assert answer(session, ids) == fresh(pair, ids)


def test_a_refused_prompt_changes_nothing():
    session = Session(small_pair())
    answer(session, [5, 6, 7])
    before = list(session.token_ids)
    with pytest.raises(PromptError, match="vocabulary"):
        answer(session, [5, 6, 7, 10**6])
    assert session.token_ids == before


def test_samples_are_those_of_their_seed():
    pair = small_pair()
    session, ids = Session(pair), [5, 6, 7, 8]
    options = {"sampler": make_sampler(0.9, seed=3)}
    said = answer(session, ids, **options)
    longer = [*ids, *said, 9]
    assert answer(session, longer, **options) == fresh(pair, longer, **options)


def test_memory_is_counted_and_given_back():
    session = Session(small_pair())
    empty = session.nbytes
    answer(session, [5, 6, 7])
    assert session.nbytes > empty
    session.reset()
    assert session.nbytes == empty
    assert generate(session.pair, [5, 6, 7], 3)


@pytest.mark.parametrize("family", ["qwen3", "qwen3_5", "qwen3_next", "gpt_oss", "gemma4, shared keys"])
@pytest.mark.parametrize("where", ["everything", "its prompt"])
def test_a_fork_and_its_origin_go_separate_ways(family, where):
    pair = tiny_pair(family)
    session, ids = Session(pair), list(range(5, 30))
    said = answer(session, ids)
    shared = [*ids, *said] if where == "everything" else [*ids[:-1]]
    here, there = [*ids, *said, 40, 41], [*shared, 50, 51]
    other = session.fork(there)
    assert session.reusable(here) == len(ids) + len(said)
    for turn in range(2):
        assert answer(other, there) == fresh(pair, there)
        assert other.reused >= len(shared)
        assert answer(session, here) == fresh(pair, here)
        here, there = [*session.token_ids, 9 + turn], [*other.token_ids, 20 + turn]


@settings(max_examples=15)
@given(TOKENS, TOKENS)
def test_what_is_reusable_is_what_resume_keeps(first, second):
    for family in ("qwen3", "gpt_oss"):
        session = Session(tiny_pair(family))
        answer(session, first, 4)
        promised = session.reusable(second)
        assert session.resume(second) == promised == len(session.token_ids)
