"""What a body asks for is done or refused: nothing is passed over, and refusals are sentences."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_ddtree.generation.options import CONTEXTS, FLAGS, FORM, PROMPTS
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.fields import ABOUT_NO_ANSWER, NEUTRAL
from mlx_ddtree.server.options import decoding_options_of, logit_bias_of
from mlx_ddtree.server.parsing import SENTENCES, parse
from mlx_ddtree.server.requests import ChatRequest, TextRequest
from mlx_ddtree.server.run import SHARED_OPTIONS
from mlx_ddtree.server.settings import RequestDefaults

CHAT = {"messages": [{"role": "user", "content": "x"}]}
NOT_OFFERED = {
    **{"guided_json": {"type": "object"}, "grammar": 'root ::= "x"', "n": 99, "n ": 1},
    **{"continue_final_message": True, "add_generation_prompt": False, "stop_token_ids": [5], "min_tokens": 100},
    **{"ignore_eos": True, "adapters": "/a", "enable_thinking": False, "best_of": 3, "echo": True, "suffix": "x"},
    **{"response_format": {"type": "xml"}, "tool_choice": "always", "functions": [{}], "audio": {}},
    **{"structured_outputs": {"xml": "x"}, "guided_regex": "a", "json_schema": {}},
    **{"verbosity": "low", "web_search_options": {}, "modalities": ["audio"]},
    **{"prompt": "x", "Temperature": 1, "mirostat": 2, "repeat_penalty": 1.1},
}


def refusal(kind, body):
    with pytest.raises(ApiError) as caught:
        parse(kind, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_what_is_not_offered_is_refused_by_name(name):
    error = refusal(ChatRequest, CHAT | {name: NOT_OFFERED[name]})
    assert error.param == name and str(error).startswith(f"{name}: ")


def test_what_asks_for_nothing_passes():
    neutral = {name: value for name, values in NEUTRAL.items() for value in values}
    about_nothing = dict.fromkeys(ABOUT_NO_ANSWER, "x") | dict.fromkeys(NOT_OFFERED) | {"prompt": None}
    for extra in (neutral, about_nothing):
        parse(ChatRequest, json.dumps(CHAT | extra).encode())


@given(st.sampled_from([1, True, 1.0, "1", [1], 0, False]))
def test_a_neutral_value_has_its_type(value):
    """1 and True are equal in Python, but a client that says true to a number means something else."""
    if type(value) is int and value == 1:
        parse(ChatRequest, json.dumps(CHAT | {"best_of": value}).encode())
    else:
        assert refusal(ChatRequest, CHAT | {"best_of": value}).param == "best_of"


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (TextRequest, {"prompt": ["a"] * 65}, "prompt: may hold 64 prompts at most"),
        (TextRequest, {"prompt": ["a", {}]}, "prompt: must be a text or a list of token ids"),
        (TextRequest, {"prompt": "x", "n": 17}, "n: must be at most 16"),
        (TextRequest, {"prompt": [1, "a"]}, "prompt: must be a text or a list of token ids"),
        (TextRequest, {"prompt": [True]}, "prompt: must be a text or a list of token ids"),
        (TextRequest, {}, "prompt: is missing"),
        (
            TextRequest,
            {"prompt": "x", "max_tokens": -1},
            "max_tokens: must be at least 1; leave it out for the server's",
        ),
        (TextRequest, {"prompt": "x", "max_tokens": 2**40}, "max_tokens: must be at most 2147483648"),
        (TextRequest, {"prompt": "x", "max_tokens": 1.5}, "max_tokens: must be a whole number"),
        (TextRequest, {"prompt": "x", "temperature": "hot"}, "temperature: must be a number"),
        (TextRequest, {"prompt": "x", "top_p": 2}, "top_p: must be at most 1"),
        (TextRequest, {"prompt": "x", "stop": [""]}, "stop: must be a text or a list of up to 16 texts"),
        (TextRequest, {"prompt": "x", "stop": ["a"] * 17}, "stop: must be a text or a list of up to 16 texts"),
        (TextRequest, {"prompt": "x", "stream": 1}, "stream: must be true or false"),
        (TextRequest, {"prompt": "x", "logit_bias": []}, "logit_bias: must be an object"),
        (TextRequest, {"prompt": "x", "logit_bias": {"5": "a"}}, "logit_bias.5: must be a number"),
        (
            TextRequest,
            {"prompt": "x", "prefill_compression": "no"},
            "prefill_compression: must be 'off', 'auto', 'always' or",
        ),
        (ChatRequest, {"messages": {}}, "messages: must be a list"),
        (ChatRequest, {"messages": []}, "messages: must not be empty"),
        (ChatRequest, {"messages": ["x"]}, "messages.0: must be an object"),
        (ChatRequest, {"messages": [{"role": 1}]}, "messages.0.role: must be a text"),
        (ChatRequest, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content: must be a text, or a list"),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content: must have parts",
        ),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content: has a part of type 'image_url', but only 'text' can be read: no images",
        ),
        (ChatRequest, CHAT | {"tools": [{"type": "web"}]}, "tools.0.type: must be 'function'"),
        (ChatRequest, CHAT | {"top_logprobs": 2}, "top_logprobs needs logprobs: true"),
    ],
)
def test_refusals_are_for_people(kind, body, words):
    error = refusal(kind, body)
    assert words in str(error)
    assert error.param in (*body, "prompt", None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=5,
)


@given(st.sampled_from([ChatRequest, TextRequest]), st.data())
def test_every_refusal_is_one_of_our_sentences(kind, data):
    """pydantic's own ones name Python's classes; a kind of error that has no sentence yet shows here."""
    name = data.draw(st.sampled_from(sorted(kind.model_fields)))
    body = {"prompt": "x"} if kind is TextRequest else dict(CHAT)
    try:
        parse(kind, json.dumps(body | {name: data.draw(VALUES)}).encode())
    except ApiError as error:
        assert "cannot be used" not in str(error), SENTENCES
        assert not any(inner in str(error) for inner in ("Input", "instance", "list[", "str]", "function-"))


def deep(levels):
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (deep(100), "nested too deeply"),
        (deep(100_000), "nested too deeply"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
        (b"9" * 5000, "5,000 digits"),
        (b"NaN", "no number"),
        (b"-Infinity", "no number"),
        (b"1e999", "no number"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'"\xff"', "not valid JSON"),
        (b"", "not valid JSON"),
    ],
)
def test_bodies_that_cannot_be_read_are_one_sentence(value, words):
    for body in (b'{"user": ' + value + b', "prompt": "x"}', b'{"prompt": "x", "user": {"a": ' + value + b"}}"):
        error = refusal(TextRequest, body)
        assert words in str(error) and error.code == "invalid_json" and len(str(error)) < 200


def test_bodies_of_usual_depth_pass():
    parse(TextRequest, b'{"prompt": "x", "metadata": ' + deep(30) + b"}")


BEGUN = {"messages": [*CHAT["messages"], {"role": "assistant", "content": "Well"}]}


@pytest.mark.parametrize("more", [{}, {"add_generation_prompt": False}])
def test_an_answer_that_was_begun_is_taken_further(more):
    request, _ = parse(ChatRequest, json.dumps(BEGUN | {"continue_final_message": True} | more).encode())
    assert request.continue_final_message
    for name, body in {
        "continue_final_message": CHAT | {"continue_final_message": True},
        "add_generation_prompt": BEGUN | {"add_generation_prompt": False},
    }.items():
        assert refusal(ChatRequest, body).param == name
    empty = {"messages": [*CHAT["messages"], {"role": "assistant", "content": ""}], "continue_final_message": True}
    assert "must have content" in str(refusal(ChatRequest, empty))


def test_a_tiny_temperature_is_greedy():
    for value in (1e-8, 1e-39, 5e-324, 0, 0.0):
        request, _ = parse(ChatRequest, json.dumps(CHAT | {"temperature": value}).encode())
        assert decoding_options_of(request, RequestDefaults(temp=0.7), {})["temp"] == 0
    request, _ = parse(ChatRequest, json.dumps(CHAT | {"temperature": 0.01}).encode())
    assert decoding_options_of(request, RequestDefaults(), {})["temp"] == 0.01


SAID = {
    **{"temperature": 0.3, "top_p": 0.8, "min_p": 0.2, "min_tokens_to_keep": 3, "top_k": 9, "xtc_probability": 0.4},
    **{"xtc_threshold": 0.2, "seed": 5, "max_tokens": 7, "stop": ["end"]},
}


@pytest.mark.parametrize("name", SAID)
def test_the_command_lines_default_counts_where_a_request_says_nothing(name):
    option = "temp" if name == "temperature" else name
    defaults = RequestDefaults(**{option: SAID[name]})
    silent, _ = parse(ChatRequest, json.dumps(CHAT).encode())
    spoken, _ = parse(ChatRequest, json.dumps(CHAT | {name: SAID[name]}).encode())
    assert decoding_options_of(silent, defaults, {})[option] == SAID[name]
    assert decoding_options_of(spoken, RequestDefaults(), {})[option] == SAID[name]
    assert decoding_options_of(silent, RequestDefaults(), {})[option] != SAID[name]


def test_every_flag_of_the_program_has_an_effect():
    """Each is a default of requests, shared by all of them, or about long prompts."""
    long_prompts = {name for name, flag in FLAGS.items() if flag.group in (PROMPTS, CONTEXTS)}
    forms = {name for name, flag in FLAGS.items() if flag.group == FORM}  # left out: a request says which it wants
    known = RequestDefaults.__dataclass_fields__.keys() | set(SHARED_OPTIONS) | long_prompts | forms
    assert known == FLAGS.keys()


WRITTEN = st.integers(-(10**12), 10**12).map(str) | st.text(st.sampled_from("0123456789+-_ ²٣"), max_size=30)


@given(WRITTEN | st.integers(0, 2**70).map(lambda number: f"{number:040d}"))
@example("007")
@example("00000000002147483647")
@example("0")
@example("8191")
@example("8192")
def test_a_bias_is_for_tokens_of_the_vocabulary_only(key):
    """An index outside of it would be a write to foreign memory."""
    request, _ = parse(ChatRequest, json.dumps(CHAT | {"logit_bias": {key: 1.0}}).encode())
    try:
        bias = logit_bias_of(request, 8192)
    except ApiError as error:
        assert error.param == "logit_bias"
        assert key not in {str(token) for token in range(8192)}
    else:
        ((token, _),) = bias.items()
        assert str(token) == key and 0 <= token < 8192
