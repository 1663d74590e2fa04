"""A long prompt holds nobody up for long, and takes no harm from those who are served meanwhile."""

import asyncio
import json
import threading
from itertools import islice

import pytest

from mlx_ddtree import generate
from mlx_ddtree.server import service
from mlx_ddtree.server.calls import Call
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import Piece

from .running import BABBLE, OTHER, make_engine, serving, started, wait_until

LONG = "def add(a, b):\n    return a + b\n" * 40
SHORT = {"model": "demo", "messages": OTHER, "max_tokens": 24}
TALE = {"model": "demo", "messages": [{"role": "user", "content": "Tell a story."}], **BABBLE, "stream": True}


def test_a_small_request_is_answered_while_a_long_prompt_is_read(pair):
    """Both say what they say alone."""
    decoding = {"method": "ddtree", "tree_budget": 4, "parity": "off", "prefill_step_size": 32}
    with started(make_engine(**decoding)) as engine, serving(engine) as site:
        said, answered_at = [], []

        def read():
            body = {"prompt": LONG, "max_tokens": 12, "stream": True}
            with site.http.stream("POST", "/v1/completions", json=body) as response:
                for line in response.iter_lines():
                    said.append(line)

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: len(said) > 4)
        for _ in range(2):
            answer = site.openai.chat.completions.create(**SHORT)
            answered_at.append(len(said))
        reader.join(60)
        first = next(place for place, line in enumerate(said) if line.startswith("data: {"))
        assert all(place <= first for place in answered_at)
        text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in said if line.startswith("data: {"))
        assert text == generate(pair, LONG, 12, **decoding)
        assert answer.choices[0].message.content == generate(pair, OTHER, 24, **decoding)
        assert site.metric("requests_running") == 0


def test_what_goes_on_beside_ends_with_its_client_and_with_the_server(pair):
    with started(make_engine(method="ar", prefill_step_size=16)) as engine, serving(engine) as site:
        long = threading.Thread(
            target=lambda: site.http.post("/v1/completions", json={"prompt": LONG, "max_tokens": 4})
        )
        long.start()
        wait_until(lambda: engine._running is not None)
        with site.http.stream("POST", "/v1/chat/completions", json=TALE) as response:
            lines = response.iter_lines()
            while "content" not in next(lines):
                pass
            assert engine._beside.job is not None
        wait_until(lambda: engine._beside.job is None)
        long.join(60)
        site.idle()
        assert engine.metrics.requests.labels("completions", "ok")._value.get() == 1


def test_what_is_not_read_is_bounded_and_ends_the_answer(site, pair):
    """An answer that nobody takes goes no further than the bound; what was made by then can still be read."""
    engine, outcomes, kept = site.engine, [], []

    async def ask():
        call = Call(engine, None, outcomes.append, 20_000)
        call.submit(pair.tokenizer.encode("def f("), lambda: {"max_tokens": 5000, "temp": 1.6, "seed": 1}, None)
        while engine._running is not None or engine.waiting:
            await asyncio.sleep(0.02)
        with pytest.raises(ApiError, match="read too slowly"):
            async for event in call.events():
                kept.append(event)
        call.end("hung_up")

    asyncio.run(ask())
    text = "".join(event.text for event in kept if isinstance(event, Piece))
    assert 10 < len(kept) < 45 and text
    assert outcomes == ["hung_up"]


def test_a_stream_hears_something_while_it_waits(site, monkeypatch):
    """Comments for OpenAI's clients, pings for Anthropic's."""
    monkeypatch.setattr(service, "KEEP_ALIVE", 0.2)
    before = site.metric("requests_total")
    with site.http.stream("POST", "/v1/chat/completions", json=TALE) as busy:
        lines = busy.iter_lines()  # kept: a dropped one closes the stream
        assert len([line for line in islice(lines, 20) if line.startswith("data: ")]) > 2
        chat = {"model": "demo", "messages": OTHER, "max_tokens": 2, "stream": True}
        for path, word in (("/v1/chat/completions", ": still here"), ("/v1/messages", "event: ping")):
            with site.http.stream("POST", path, json=chat, timeout=20) as response:
                assert word in next(line for line in response.iter_lines() if word in line)
    wait_until(lambda: site.metric("requests_total") == before + 3)
    site.idle()
