"""Streams in asyncio code: the same responses, a loop that is not held up, and whole sessions however it ends."""

import asyncio

import pytest

from mlx_ddtree import OptionError, Session, asynchronous, generate, load, stream_branches, stream_generate

MESSAGES = [{"role": "user", "content": "Write a function that adds two numbers."}]


@pytest.fixture(scope="module")
def pair():
    return load()


def test_the_text_is_the_same_and_the_loop_runs_meanwhile(pair):
    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def answer():
        ticking = asyncio.create_task(tick())
        text = "".join([response.text async for response in asynchronous(stream_generate(pair, MESSAGES, 40))])
        ticking.cancel()
        return text

    assert asyncio.run(answer()) == generate(pair, MESSAGES, 40)
    assert len(ticks) > 10


def test_branches_and_errors_come_through(pair):
    async def texts():
        stream = stream_branches(pair, MESSAGES, 2, 8, temp=0.8, seed=1)
        parts = [response.texts async for response in asynchronous(stream)]
        return ["".join(pieces) for pieces in zip(*parts, strict=True)]

    assert asyncio.run(texts()) == generate(pair, MESSAGES, 8, n=2, temp=0.8, seed=1)

    def failing():
        yield 1
        raise OptionError("as it was raised")

    async def all_of(stream):
        return [response async for response in asynchronous(stream)]

    with pytest.raises(OptionError, match="as it was raised"):
        asyncio.run(all_of(failing()))


def test_a_cancelled_task_leaves_its_session_whole(pair):
    """The next answer is that of a session which never was cancelled."""
    session = Session(pair)

    async def read():
        async for response in asynchronous(session.stream(MESSAGES, 60)):
            if response.rounds == 1:
                started.set()

    async def cancel():
        task = asyncio.create_task(read())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return "".join([r.text async for r in asynchronous(session.stream(MESSAGES, 60))])

    started = asyncio.Event()
    assert asyncio.run(cancel()) == generate(pair, MESSAGES, 60)


def test_a_session_that_answers_says_so(pair):
    """Two tasks that ask one session at the same time: the second is told in one line."""
    session = Session(pair)

    async def ask_twice():
        stream = session.stream(MESSAGES, 60, prompt_progress_callback=lambda done, total: asking())
        return [response async for response in asynchronous(stream)]

    def asking():
        with pytest.raises(OptionError, match="this session is answering"):
            session.stream(MESSAGES)

    assert asyncio.run(ask_twice())
