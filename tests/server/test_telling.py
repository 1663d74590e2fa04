"""Metrics and log say where a prompt's beginning was, and nothing of what it said."""

import logging
import re

from mlx_ddtree.generation.stored.folder import StoredFolder
from mlx_ddtree.server.engine import Engine

from ..talks import Talk, answer, talking_pair, user
from .running import serving, started, wait_until

DECODING = {"method": "ar"}
SECRET = "xylophone"


def hits(engine):
    counters = {kind: engine.metrics.cache_hits.labels(kind) for kind in ("memory", "place", "disk", "none")}
    return {kind: int(counter._value.get()) for kind, counter in counters.items()}


def ask(site, ids):
    before = sum(hits(site.engine).values())
    site.openai.completions.create(model="demo", prompt=ids, max_tokens=3)
    wait_until(lambda: sum(hits(site.engine).values()) > before)


def engine_on(path):
    folder = StoredFolder(path, 2**30)
    return Engine(
        lambda: talking_pair("qwen3_5", drafter=False),
        DECODING,
        queue_size=4,
        cache_size=10,
        cache_bytes=2**30,
        folder=folder,
    )


def test_hits_are_counted_by_where_they_were(tmp_path):
    talk = Talk(talking_pair("qwen3_5", drafter=False))
    first = talk.ids(user("Which file holds the greeting."))
    second = talk.ids(answer("In greet.py."), user("And who calls main.py."))
    with started(engine_on(tmp_path)) as engine, serving(engine) as site:
        ask(site, first)
        ask(site, second)
        ask(site, second)
        assert hits(engine) == {"memory": 0, "place": 2, "disk": 0, "none": 1}
        wait_until(lambda: site.metric("prompt_cache_disk_bytes") > 0)
    with started(engine_on(tmp_path)) as engine, serving(engine) as site:
        ask(site, second)
        assert hits(engine) == {"memory": 0, "place": 0, "disk": 1, "none": 0}
        tokens = engine.metrics.cache_hit_tokens.labels("disk")._value.get()
        assert tokens == site.metric("cached_tokens_total") > 0.9 * len(second)


def test_every_answer_has_a_line_of_figures(site, caplog):
    with caplog.at_level(logging.INFO, logger="mlx_ddtree.server.telling"):
        messages = [{"role": "user", "content": f"Write {SECRET}."}]
        site.openai.chat.completions.create(model="demo", messages=messages, max_tokens=5)
        site.idle()
        wait_until(lambda: caplog.messages)
    (line,) = caplog.messages
    assert re.fullmatch(
        r"answered: \d+ prompt tokens, (none|\d+) of them (cached|from memory), waited \d\.\d\d s, "
        r"first token \d+\.\d\d s later, 5 tokens in \d+\.\d\d s, \d\.\d\d a round, ended by length",
        line,
    )
    assert SECRET not in line
