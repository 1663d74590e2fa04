"""Whatever is sent, the answer is an answer or a 4xx in OpenAI's format."""

import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .running import QUESTION

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HEADERS = {"Content-Type": "application/json"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "tool", "assistant"]) | VALUES},
    optional={
        "content": st.text(max_size=8)
        | VALUES
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": VALUES})),
        "tool_calls": st.lists(st.fixed_dictionaries({"function": VALUES})) | VALUES,
        "name": VALUES,
    },
)
FIELDS = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "top_k": st.integers(0, 10**6),
    "min_p": st.floats(0, 1),
    "seed": st.integers(),
    "stop": st.text(min_size=1, max_size=3) | st.lists(st.text(max_size=3), max_size=3),
    "logprobs": st.booleans() | st.integers(0, 6),
    "top_logprobs": st.integers(0, 21),
    "logit_bias": st.dictionaries(st.integers(-1, 10**4).map(str), st.floats(-101, 101), max_size=3),
    "repetition_penalty": st.floats(0, 2),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "chat_template_kwargs": st.dictionaries(st.sampled_from(["x", "messages", "chat_template", "self"]), VALUES),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    **dict.fromkeys(("model", "n", "tools", "tool_choice", "reasoning_effort", "user", "response_format"), VALUES),
}
OPTIONS = st.fixed_dictionaries({"max_tokens": st.integers(1, 3)}, optional={k: v | VALUES for k, v in FIELDS.items()})


def check(response):
    if response.status_code == 200:
        assert "data: [DONE]" in response.text or response.json()["choices"]
        assert '"error"' not in response.text
    else:
        assert 400 <= response.status_code < 500, response.text
        error = response.json()["error"]
        assert error["message"] and error["type"] == "invalid_request_error"
    return response


def send(site, path, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return check(site.http.post(path, content=content, headers=HEADERS))


@settings(max_examples=35)
@given(OPTIONS, st.lists(MESSAGES, max_size=2) | VALUES)
def test_chats_of_any_shape(site, options, messages):
    send(site, CHAT, options | {"messages": messages})


@settings(max_examples=35)
@given(OPTIONS, st.text(max_size=8) | st.lists(st.integers(-1, 10**4), max_size=4) | VALUES)
def test_completions_of_any_shape(site, options, prompt):
    send(site, TEXT, options | {"prompt": prompt})


@settings(max_examples=35)
@given(OPTIONS)
def test_good_questions_with_any_options(site, options):
    send(site, CHAT, options | {"messages": QUESTION})


@settings(max_examples=35)
@given(VALUES | st.binary(max_size=40))
def test_bodies_of_any_kind(site, body):
    assert send(site, CHAT, body).status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 200_000, 400),
        (b'{"prompt": ' + b"9" * 5000 + b"}", 400),
        (b'{"prompt": "x", "temperature": NaN}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"prompt": "x", "model": "\\ud800"}', 400),
        (b'{"prompt": "\\uD83D\\uDE00", "max_tokens": 1}', 200),
        (b'{"prompt": [], "max_tokens": 1}', 400),
        (b'{"prompt": ["a", "b"], "max_tokens": 1}', 200),
        (b'{"prompt": ["a", 7]}', 400),
        (b'{"prompt": [-1]}', 400),
        (b'{"prompt": "x", "max_tokens": 1, "logit_bias": {"\\u00b2": 1}}', 400),
        (b'{"prompt": "x", "max_tokens": 1, "logit_bias": {"00000000002147483647": 1}}', 400),
        (b'{"prompt": "x", "max_tokens": 1, "logit_bias": {"00000000008192": 1}}', 400),
        (b'{"prompt": "x", "max_tokens": 1, "logit_bias": {"8192": 1}}', 400),
        (b'{"prompt": "x", "max_tokens": 1, "logit_bias": {"8191": 1}}', 200),
        (b'{"prompt": "x", "max_tokens": true}', 400),
        (b'{"prompt": "' + b"x" * 17 * 2**20 + b'"}', 413),
    ],
)
def test_bodies_that_were_thought_of(site, body, status):
    assert send(site, TEXT, body).status_code == status


def test_ways_that_do_not_exist(site):
    for method, path, status in [("GET", CHAT, 405), ("POST", "/v1/models", 405), ("GET", "/v2", 404)]:
        response = check(site.http.request(method, path))
        assert response.status_code == status


def test_a_body_that_breaks_off(site):
    """... is no error of the server's, and nothing waits for its rest."""

    def body():
        yield b"{"
        raise RuntimeError("the client breaks")

    with pytest.raises(RuntimeError):
        httpx.post(site.url + TEXT, content=body(), headers=HEADERS | {"Content-Length": "99"})
    site.idle(5)
    assert site.http.get("/health").status_code == 200
