"""Clients that go, wait too long or are too many: decoding ends with them, and what is kept stays right."""

import threading
import time

import httpx
import openai
import pytest

from mlx_ddtree import generate

from .running import BABBLE, OTHER, QUESTION, make_engine, serving, started, text_of, wait_until

TALE = {"model": "demo", "messages": [{"role": "user", "content": "Tell me a long story about a function."}], **BABBLE}


@pytest.fixture
def counted(site):
    """How much a metric has grown since the test began."""
    names = ("requests_total", "generated_tokens_total", "rounds_total")
    before = {name: site.metric(name) for name in names}
    return lambda name: site.metric(name) - before[name]


def test_a_stream_that_is_left_ends(site, counted):
    with site.http.stream("POST", "/v1/chat/completions", json={**TALE, "stream": True}) as response:
        lines = response.iter_lines()
        while "content" not in next(lines):
            pass
    site.idle(20)
    assert counted("generated_tokens_total") < 3000
    assert counted("requests_total") == 1
    again = site.openai.chat.completions.create(**TALE | {"max_tokens": 30, "temperature": 0})
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1


def test_an_answer_that_nobody_waits_for_ends(site, counted, pair):
    with pytest.raises(httpx.ReadTimeout):
        site.http.post("/v1/chat/completions", json=TALE, timeout=0.5)
    site.idle(20)
    assert counted("generated_tokens_total") < 3000
    assert counted("requests_total") == 1
    whole = site.openai.chat.completions.create(model="demo", messages=QUESTION, max_tokens=40)
    assert whole.choices[0].message.content == generate(pair, QUESTION, 40)


def test_a_prompt_is_given_up_between_its_chunks(pair):
    """... and what of it was processed is kept."""
    prompt = pair.tokenizer.encode("def add(a, b):\n    return a + b\n" * 70)
    with started(make_engine(method="ar", prefill_step_size=16)) as engine, serving(engine) as site:
        with pytest.raises(httpx.ReadTimeout):
            site.http.post("/v1/completions", json={"prompt": prompt, "max_tokens": 1}, timeout=0.2)
        site.idle(60)
        assert site.metric("generated_tokens_total") == 0
        assert engine.metrics.requests.labels("completions", "hung_up")._value.get() == 1
        done = site.openai.completions.create(model="demo", prompt=prompt, max_tokens=3)
        assert 0 < done.usage.prompt_tokens_details.cached_tokens < len(prompt) - 1
        assert done.choices[0].text == generate(pair, prompt, 3, method="ar")


def test_who_waits_and_goes_frees_the_place(site):
    with site.http.stream("POST", "/v1/chat/completions", json={**TALE, "stream": True}) as response:
        lines = response.iter_lines()  # kept: a dropped one closes the stream
        next(lines)
        with pytest.raises(httpx.ReadTimeout):
            site.http.post("/v1/chat/completions", json=TALE, timeout=0.3)
        wait_until(lambda: site.engine.waiting == 0, 5)
        assert site.engine._running is not None
    site.idle(20)


def test_a_full_queue_says_so_and_the_rest_are_answered_in_order():
    with started(make_engine(queue_size=2, method="ar")) as engine, serving(engine) as site:
        order, threads = [], []

        def ask(number):
            site.openai.completions.create(model="demo", prompt="def f(", max_tokens=2)
            order.append(number)

        with site.http.stream("POST", "/v1/chat/completions", json={**TALE, "stream": True}) as response:
            lines = response.iter_lines()  # kept: a dropped one closes the stream
            next(lines)
            for number in range(2):
                threads.append(threading.Thread(target=ask, args=(number,)))
                threads[-1].start()
                wait_until(lambda: engine.waiting == len(threads))
            for stream in (False, True):
                with pytest.raises(openai.RateLimitError, match="2 requests are waiting") as refusal:
                    site.openai.completions.create(model="demo", prompt="x", stream=stream)
                assert int(refusal.value.response.headers["retry-after"]) >= 1
            assert site.metric("requests_waiting") == 2 and site.metric("requests_running") == 1
        for thread in threads:
            thread.join()
        assert order == [0, 1]
        assert engine.metrics.requests.labels("completions", "full")._value.get() == 2


def test_a_request_has_its_time(engine):
    with serving(engine, request_seconds=0.6) as site:
        with pytest.raises(openai.InternalServerError, match=r"not complete after 0\.6 s") as late:
            site.openai.chat.completions.create(**TALE)
        assert late.value.status_code == 504
        with pytest.raises(openai.APIError, match=r"not complete after 0\.6 s"):
            for _ in site.openai.chat.completions.create(stream=True, **TALE):
                pass
        site.idle(20)


def test_errors_inside_are_told_without_details(pair, caplog):
    """A failure that nobody foresaw: 500, the log has it, and the next request is answered."""
    with started(make_engine(method="ar")) as engine, serving(engine) as site:
        engine._sessions.take([1, 2])
        take, engine._sessions.take = engine._sessions.take, lambda ids: 1 / 0
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as failure:
                site.openai.completions.create(model="demo", prompt="def f(", stream=stream)
            assert "ZeroDivision" not in failure.value.response.text
        assert "ZeroDivisionError" in caplog.text
        engine._sessions.take = take
        done = site.openai.completions.create(model="demo", prompt="def f(", max_tokens=5)
        assert done.choices[0].text == generate(pair, "def f(", 5, method="ar")


def test_stopping_ends_what_runs_and_refuses_what_waits():
    engine = make_engine(method="ar")
    with started(engine), serving(engine) as site:
        failures = []

        def ask():
            try:
                site.openai.chat.completions.create(**TALE)
            except openai.APIStatusError as error:
                failures.append(error.status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: engine.waiting == 1)
        start = time.monotonic()
        engine.stop()
        for thread in threads:
            thread.join(10)
        assert failures == [503, 503] and time.monotonic() - start < 10
        assert site.http.get("/health").status_code == 503
        with pytest.raises(openai.APIStatusError, match="503"):
            site.openai.chat.completions.create(model="demo", messages=OTHER)


def test_streams_come_in_pieces(site):
    """The first words are there long before the last."""
    chunks = site.openai.chat.completions.create(stream=True, **TALE | {"max_tokens": 80})
    first = text_of([next(chunks), next(chunks)])
    assert first and site.engine._running is not None
    assert text_of(chunks)
