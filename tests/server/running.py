"""A server on a port of its own, in threads of this process; it always ends."""

import re
import socket
import threading
import time
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import openai
import uvicorn
from mlx_lm.utils import load_tokenizer

from mlx_ddtree import load
from mlx_ddtree.server.engine import Engine
from mlx_ddtree.server.run import make_server
from mlx_ddtree.server.settings import ServerSettings

DECODING = {"method": "ddtree", "tree_budget": "auto", "parity": "exact"}
QUESTION = [{"role": "user", "content": "Write a function that counts vowels."}]
OTHER = [{"role": "user", "content": "Write a function that reverses a string."}]
END_TOKENS = load_tokenizer(Path(str(files("mlx_ddtree") / "demo" / "target"))).eos_token_ids
BABBLE = {"temperature": 1.6, "max_tokens": 4000, "logit_bias": {str(token): -100 for token in END_TOKENS}}
"""An answer that takes long: the embedded model may not come to an end."""


def make_engine(load_pair=load, queue_size=32, cache_size=10, cache_bytes=2**30, **decoding):
    return Engine(load_pair, DECODING | decoding, queue_size=queue_size, cache_size=cache_size, cache_bytes=cache_bytes)


@contextmanager
def started(engine):
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()
        assert not engine._thread.is_alive()


class Site:
    """What clients see of a server."""

    def __init__(self, engine, port):
        self.engine, self.url = engine, f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=120)
        self.openai = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    def metric(self, name):
        """The sum of a metric over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if re.match(rf"mlx_ddtree_{name}[{{ ]", line)]
        return sum(values)

    def idle(self, seconds=60):
        """Wait until nothing is decoded."""
        wait_until(lambda: self.engine._running is None and not self.engine.waiting, seconds)


@contextmanager
def serving(engine, **settings):
    """An app of its own on an engine that runs; several may share one."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = make_server(engine, ServerSettings(**{"model": "demo"} | settings), 0).config
    server = uvicorn.Server(config)  # unlike the program's own it leaves the engine as it is when it ends
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    site = Site(engine, listener.getsockname()[1])
    try:
        wait_until(lambda: server.started)
        yield site
    finally:
        site.http.close()
        site.openai.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
