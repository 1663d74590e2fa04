"""Many clients at once, some of them rude: nothing leaks, nothing wedges, and the answers stay right."""

import gc
import json
import random
import threading
import time

import httpx
import pytest

from mlx_ddtree import generate
from mlx_ddtree.generation.session import Session

from .running import BABBLE, OTHER, QUESTION, make_engine, serving, started

PROMPTS = ["counts vowels", "reverses a string", "adds two numbers", "checks whether a number is prime"]
BOUND = 12 * 10**6


def talk(task, words=0):
    return [{"role": "user", "content": f"Write a function that {task}.{' Please.' * words}"}]


class Client(threading.Thread):
    """Sends `count` requests, each of some kind; `outcomes` says what became of them."""

    def __init__(self, site, seed, count):
        super().__init__()
        self.site, self.random, self.count, self.outcomes = site, random.Random(seed), count, []

    def run(self):
        with httpx.Client(base_url=self.site.url, timeout=300) as http:
            for _ in range(self.count):
                kind = self.random.choice(
                    ["whole", "stream", "stream", "leave", "leave early", "malformed", "impatient"]
                )
                self.outcomes.append((kind, getattr(self, kind.replace(" ", "_"))(http)))

    def body(self, **changes):
        words = self.random.choice([0, 0, 5, 60, 300])
        length = self.random.choice([1, 5, 20, 60])
        messages = talk(self.random.choice(PROMPTS), words)
        temperature = self.random.choice([0, 0, 0.8])
        return {"messages": messages, "max_tokens": length, "temperature": temperature, **changes}

    def whole(self, http):
        return http.post("/v1/chat/completions", json=self.body()).status_code

    def stream(self, http):
        with http.stream("POST", "/v1/chat/completions", json=self.body(stream=True)) as response:
            lines = list(response.iter_lines()) if response.status_code == 200 else ["", ""]
        return response.status_code if "data: [DONE]" in lines or response.status_code != 200 else "broken"

    def leave(self, http):
        with http.stream("POST", "/v1/chat/completions", json=self.body(stream=True, **BABBLE)) as response:
            if response.status_code == 200:
                for count, _ in enumerate(response.iter_lines()):
                    if count > 8:
                        break
        return response.status_code

    def leave_early(self, http):
        with http.stream("POST", "/v1/chat/completions", json=self.body(stream=True, **BABBLE)) as response:
            return response.status_code

    def impatient(self, http):
        try:
            return http.post("/v1/chat/completions", json=self.body(**BABBLE), timeout=0.2).status_code
        except httpx.TimeoutException:
            return "left"

    def malformed(self, http):
        body = json.dumps(self.body()).encode()[: self.random.randint(0, 40)]
        return http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}).status_code


def storm(site, clients, count, seed):
    """All outcomes, (kind, status)."""
    crowd = [Client(site, seed + i, count) for i in range(clients)]
    for client in crowd:
        client.start()
    for client in crowd:
        client.join(900)
        assert not client.is_alive(), "a client waits for ever"
    outcomes = [outcome for client in crowd for outcome in client.outcomes]
    assert len(outcomes) == clients * count
    return outcomes


def check_calm(site, pair, requests, threads):
    """After the storm: right answers, bounds held, nothing left over, and figures that add up."""
    site.idle(30)
    assert site.metric("prompt_cache_bytes") <= BOUND and site.metric("prompt_cache_sessions") <= 5
    for messages in (QUESTION, OTHER, talk(PROMPTS[0], 60)):
        answer = site.openai.chat.completions.create(model="demo", messages=messages, max_tokens=50)
        assert answer.choices[0].message.content == generate(pair, messages, 50)
    site.idle(30)
    assert site.metric("requests_total") == requests + 3 == site.metric("request_seconds_count")
    assert site.metric("requests_running") == site.metric("requests_waiting") == 0
    assert 0 < site.metric("cached_tokens_total") < site.metric("prompt_tokens_total")
    assert site.metric("rounds_total") < site.metric("generated_tokens_total")
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, Session) and item.pair is site.engine.pair]
    assert len(alive) == len(site.engine._sessions) == site.metric("prompt_cache_sessions")
    end = time.monotonic() + 15  # anyio's idle thread ends by itself
    while threading.active_count() > threads + 1:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.1)


def weather(pair, count, seeds):
    engine = make_engine(queue_size=4, cache_size=5, cache_bytes=BOUND)
    with started(engine), serving(engine) as site:
        site.openai.completions.create(model="demo", prompt="def f(", max_tokens=1)
        threads, requests = threading.active_count(), 1
        for seed in seeds:
            outcomes = storm(site, 8, count, seed)
            requests += len(outcomes)
            statuses = {status for _, status in outcomes}
            assert statuses <= {200, 429, 400, "left"}, statuses
            assert {400} == {status for kind, status in outcomes if kind == "malformed"}
            assert (("whole", 200) in outcomes) or (("stream", 200) in outcomes)
            check_calm(site, pair, requests, threads)
            requests += 3
        return requests


def test_a_storm(pair):
    weather(pair, 6, [1])


@pytest.mark.slow
def test_many_storms(pair):
    assert weather(pair, 25, range(10, 14)) > 800
