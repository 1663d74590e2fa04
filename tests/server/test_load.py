"""Many clients at once, in all APIs, some of them rude: nothing leaks, nothing wedges, and the answers stay right."""

import gc
import json
import os
import random
import threading

import httpx
import pytest

from mlx_ddtree import generate
from mlx_ddtree.generation.session import Session

from .running import BABBLE, OTHER, QUESTION, make_engine, serving, started, wait_until

PROMPTS = ["counts vowels", "reverses a string", "adds two numbers", "checks whether a number is prime"]
BOUND = 12 * 10**6


def talk(task, words=0):
    return [{"role": "user", "content": f"Write a function that {task}.{' Please.' * words}"}]


APIS = {  # path -> the field of the limit, and what the last event of a stream holds
    "/v1/chat/completions": ("max_tokens", "[DONE]"),
    "/v1/completions": ("max_tokens", "[DONE]"),
    "/v1/messages": ("max_tokens", "message_stop"),
    "/v1/responses": ("max_output_tokens", '"type": "response.'),
}


class Client(threading.Thread):
    """Sends `count` requests, each of some kind to some API; `outcomes` says what became of them."""

    def __init__(self, site, seed, count):
        super().__init__()
        self.site, self.random, self.count, self.outcomes = site, random.Random(seed), count, []

    def run(self):
        with httpx.Client(base_url=self.site.url, timeout=300) as http:
            for _ in range(self.count):
                kind = self.random.choice(
                    ["whole", "stream", "stream", "leave", "leave early", "malformed", "impatient", "count only"]
                )
                self.outcomes.append((kind, getattr(self, kind.replace(" ", "_"))(http)))

    def request(self, babbles=False, **changes):
        """A path, and what is sent to it; babbles: whether the answer is to take long."""
        path = self.random.choice(list(APIS))
        words = self.random.choice([0, 0, 5, 60, 300])
        messages = talk(self.random.choice(PROMPTS), words)
        body = {"temperature": self.random.choice([0, 0, 0.8]), **changes} | (BABBLE if babbles else {})
        body[APIS[path][0]] = body.pop("max_tokens", self.random.choice([1, 5, 20, 60]))
        if path == "/v1/completions":
            return path, body | {"prompt": [messages[0]["content"]] * self.random.choice([1, 1, 1, 2])}
        if path == "/v1/chat/completions":
            return path, body | {"messages": messages, "n": self.random.choice([1, 1, 1, 2])}
        return path, body | {"input" if path == "/v1/responses" else "messages": messages}

    def whole(self, http):
        path, body = self.request()
        return http.post(path, json=body).status_code

    def stream(self, http):
        path, body = self.request(stream=True)
        with http.stream("POST", path, json=body) as response:
            last = [line for line in response.iter_lines() if line.startswith("data:")][-1:]
        ended = response.status_code != 200 or APIS[path][1] in last[0]
        return response.status_code if ended else "broken"

    def leave(self, http):
        path, body = self.request(babbles=True, stream=True)
        with http.stream("POST", path, json=body) as response:
            if response.status_code == 200:
                for count, _ in enumerate(response.iter_lines()):
                    if count > 8:
                        break
        return response.status_code

    def leave_early(self, http):
        path, body = self.request(babbles=True, stream=True)
        with http.stream("POST", path, json=body) as response:
            return response.status_code

    def impatient(self, http):
        path, body = self.request(babbles=True)
        try:
            return http.post(path, json=body, timeout=0.2).status_code
        except httpx.TimeoutException:
            return "left"

    def malformed(self, http):
        path, body = self.request()
        text = json.dumps(body).encode()[: self.random.randint(0, 40)]
        return http.post(path, content=text, headers={"Content-Type": "application/json"}).status_code

    def count_only(self, http):
        messages = talk(self.random.choice(PROMPTS))
        return http.post("/v1/messages/count_tokens", json={"messages": messages}).status_code


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


def check_calm(site, pair, requests, answered, threads, files):
    """After the storm: right answers, bounds held, nothing left over, and figures that add up.

    answered: those of the requests that asked for more than a count of tokens.
    """
    site.idle(30)
    assert site.metric("prompt_cache_bytes") <= BOUND and site.metric("prompt_cache_sessions") <= 5
    for messages in (QUESTION, OTHER, talk(PROMPTS[0], 60)):
        answer = site.openai.chat.completions.create(model="demo", messages=messages, max_tokens=50)
        assert answer.choices[0].message.content == generate(pair, messages, 50)
    site.idle(30)
    assert site.metric("requests_total") == requests + 3
    assert site.metric("request_seconds_count") == answered + 3
    assert site.metric("requests_running") == site.metric("requests_waiting") == 0
    assert 0 < site.metric("cached_tokens_total") < site.metric("prompt_tokens_total")
    assert site.metric("rounds_total") < site.metric("generated_tokens_total")
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, Session) and item.pair is site.engine.pair]
    assert len(alive) == len(site.engine._sessions) == site.metric("prompt_cache_sessions")
    wait_until(lambda: threading.active_count() <= threads + 1, 15)  # anyio's idle thread ends by itself
    wait_until(lambda: open_files() <= files + 2, 15)  # the clients of this test keep a connection each


def open_files():
    return len(os.listdir("/dev/fd"))


def weather(pair, count, seeds):
    engine = make_engine(queue_size=4, cache_size=5, cache_bytes=BOUND)
    with started(engine), serving(engine) as site:
        site.openai.completions.create(model="demo", prompt="def f(", max_tokens=1)
        threads, files, requests = threading.active_count(), open_files(), 1
        answered = 1
        for seed in seeds:
            outcomes = storm(site, 8, count, seed)
            requests += len(outcomes)
            answered += sum(kind != "count only" for kind, _ in outcomes)
            statuses = {status for _, status in outcomes}
            assert statuses <= {200, 429, 400, "left"}, statuses
            assert {400} == {status for kind, status in outcomes if kind == "malformed"}
            assert (("whole", 200) in outcomes) or (("stream", 200) in outcomes)
            check_calm(site, pair, requests, answered, threads, files)
            requests, answered = requests + 3, answered + 3
        return requests


def test_a_storm(pair):
    weather(pair, 5, [1])


@pytest.mark.slow
def test_many_storms(pair):
    assert weather(pair, 25, range(10, 14)) > 800
