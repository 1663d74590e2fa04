"""Caches have one owner at a time, and what depends on the text before sees all of it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from mlx_lm.sample_utils import make_logits_processors

from mlx_ddtree import Session, make_prompt_cache, stream_generate
from mlx_ddtree.errors import OptionError

from ..helpers import small_pair

PROMPT = [5, 9, 23, 41, 12, 7, 5, 9]
MORE = [3, 11, 30]


def pair_without_end():
    pair = small_pair()
    pair.tokenizer.eos_token_ids.clear()
    return pair


def tokens(stream):
    return [token for response in stream for token in response.tokens]


@pytest.mark.parametrize("kind", ["ours", "a plain list"])
def test_a_cache_whose_stream_is_open_is_refused(kind):
    """Until a stream ends, caches run ahead of the tokens that they are known by."""
    pair = pair_without_end()
    cache = make_prompt_cache(pair)
    if kind == "a plain list":
        cache = list(cache[: pair.target.num_caches])
    first = stream_generate(pair, PROMPT, 12, prompt_cache=cache)
    next(first)
    with pytest.raises(OptionError, match="still open"):
        next(stream_generate(pair, MORE, 12, prompt_cache=cache))
    first.close()
    assert len(tokens(stream_generate(pair, MORE, 12, prompt_cache=cache))) == 12


def test_a_session_closes_an_answer_that_was_not_read_to_its_end():
    pair = pair_without_end()
    session = Session(pair)
    left_open = session.stream(PROMPT, 40)
    next(left_open)
    second = tokens(session.stream([*PROMPT, 4], 12))
    assert second == tokens(stream_generate(pair, [*PROMPT, 4], 12))
    assert list(left_open) == []


def test_a_session_that_answers_in_another_thread_refuses():
    pair = pair_without_end()
    session = Session(pair)
    next(session.stream(PROMPT, 40))
    with ThreadPoolExecutor(1) as pool, pytest.raises(OptionError, match="another thread"):
        pool.submit(lambda: session.stream(MORE, 4)).result()


def test_streams_of_several_threads_do_not_mix():
    """One pair, four threads, one text each: what every one of them says alone."""
    pair = pair_without_end()
    prompts = [[*PROMPT, extra] for extra in (4, 8, 15, 16)]
    want = [tokens(stream_generate(pair, prompt, 24)) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda prompt: tokens(stream_generate(pair, prompt, 24)), prompts))
    assert got == want


def test_streams_of_asyncio_take_turns():
    pair = pair_without_end()
    prompts = [[*PROMPT, 4], [*PROMPT, 8]]
    want = [tokens(stream_generate(pair, prompt, 16)) for prompt in prompts]

    async def answer(prompt):
        said = []
        for response in stream_generate(pair, prompt, 16):
            said += response.tokens
            await asyncio.sleep(0)
        return said

    async def both():
        return await asyncio.gather(*map(answer, prompts))

    assert asyncio.run(both()) == want


@pytest.mark.parametrize("how", ["session", "prompt_cache"])
@pytest.mark.parametrize("method", ["ar", "ddtree"])
def test_processors_see_what_a_cache_stands_for(how, method):
    """A penalised prompt gives one answer, whether or not its beginning was cached."""
    pair = pair_without_end()
    options = {
        "method": method,
        "logits_processors": make_logits_processors(repetition_penalty=3.0, repetition_context_size=64),
    }
    whole = [*PROMPT, *MORE]
    want = tokens(stream_generate(pair, whole, 24, **options))
    if how == "session":
        session = Session(pair)
        tokens(session.stream([*PROMPT, 4], 1))
        got = tokens(session.stream(whole, 24, **options))
        assert session.reused == len(PROMPT)
    else:
        cache = make_prompt_cache(pair)
        said = tokens(stream_generate(pair, PROMPT, 3, prompt_cache=cache))
        got = tokens(stream_generate(pair, MORE, 24, prompt_cache=cache, **options))
        want = tokens(stream_generate(pair, [*PROMPT, *said, *MORE], 24, **options))
    assert got == want


def test_what_is_wrong_fails_at_the_call():
    pair = small_pair()
    with pytest.raises(OptionError, match="unknown method"):
        stream_generate(pair, PROMPT, method="foo")
