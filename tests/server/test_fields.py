"""No field of a known API is passed over by accident: each is taken, or changes nothing, or is refused by name."""

import inspect
import json
import re

import mlx_lm.server
import pytest
from anthropic.types.beta.message_create_params import MessageCreateParamsBase as BetaMessages
from anthropic.types.message_create_params import MessageCreateParamsBase as Messages
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as Chats
from openai.types.completion_create_params import CompletionCreateParamsBase as Texts
from openai.types.responses.response_create_params import ResponseCreateParamsBase as Responses

from mlx_ddtree.server import messages_request, responses_request
from mlx_ddtree.server.dialects import CHAT, MESSAGES, RESPONSES, TEXT
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.fields import ABOUT_NO_ANSWER, HINTS, NEUTRAL, OF_OTHER_SERVERS
from mlx_ddtree.server.requests import EXTENSIONS, ChatRequest, TextRequest

ASK = {
    CHAT: {"messages": [{"role": "user", "content": "x"}]},
    TEXT: {"prompt": "x"},
    MESSAGES: {"messages": [{"role": "user", "content": "x"}]},
    RESPONSES: {"input": "x"},
}
OFFICIAL = {
    CHAT: (Chats, ChatRequest.model_fields.keys() | ABOUT_NO_ANSWER | NEUTRAL.keys() | HINTS.keys()),
    TEXT: (Texts, TextRequest.model_fields.keys() | ABOUT_NO_ANSWER | NEUTRAL.keys()),
    MESSAGES: (
        Messages,
        messages_request.MessagesRequest.model_fields.keys()
        | messages_request.ABOUT_NO_ANSWER
        | messages_request.NOT_OFFERED.keys(),
    ),
    RESPONSES: (
        Responses,
        responses_request.ResponsesRequest.model_fields.keys()
        | responses_request.ABOUT_NO_ANSWER
        | responses_request.NOT_OFFERED.keys()
        | EXTENSIONS
        | NEUTRAL.keys(),
    ),
}


def read(dialect, **body):
    return dialect.read(json.dumps(ASK[dialect] | body).encode())


@pytest.mark.parametrize("dialect", OFFICIAL, ids=lambda dialect: dialect.name)
def test_the_official_clients_fields_are_all_decided(dialect):
    params, decided = OFFICIAL[dialect]
    assert set(params.__annotations__) - decided == set()


def test_those_of_agents_and_of_mlx_lm_are_too():
    _, decided = OFFICIAL[MESSAGES]
    assert set(BetaMessages.__annotations__) - decided == set()
    theirs = set(re.findall(r'self\.body\.get\(\s*"(\w+)"', inspect.getsource(mlx_lm.server)))
    known = ChatRequest.model_fields.keys() | TextRequest.model_fields.keys() | ABOUT_NO_ANSWER | HINTS.keys()
    assert len(theirs) > 15 and theirs - known - NEUTRAL.keys() == set()


NOT_OFFERED = {
    **{"adapters": "/a", "min_tokens": 5, "ignore_eos": True, "guided_json": {}, "grammar": "x", "n": 99, "echo": True},
    **{"mirostat": 2, "enable_thinking": False, "bad_words": ["x"], "thinking_budget": 5, "stop_token_ids": [7]},
}


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, RESPONSES], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("name", NOT_OFFERED)
def test_what_would_change_an_answer_is_refused_in_every_api(dialect, name):
    with pytest.raises(ApiError) as caught:
        read(dialect, **{name: NOT_OFFERED[name]})
    assert caught.value.status == 400 and caught.value.param == name


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, RESPONSES], ids=lambda dialect: dialect.name)
def test_options_of_sampling_mean_the_same_in_every_api(dialect):
    options = {
        **{"xtc_probability": 0.3, "min_p": 0.1, "seed": 7, "repetition_penalty": 1.1, "logit_bias": {"5": 1.0}},
        **{"chat_template_kwargs": {"enable_thinking": False}, "kv_keep_ratio": 0.5, "top_k": 4, "stop": ["x"]},
    }
    request = read(dialect, **options).request
    assert {name: getattr(request, name) for name in options} == options
    with pytest.raises(ApiError, match="xtc_probability: must be at most 1"):
        read(dialect, xtc_probability=2)


@pytest.mark.parametrize("dialect", ASK, ids=lambda dialect: dialect.name)
def test_drafting_is_the_servers_own_matter(dialect):
    """It changes no token, so what a client says of it passes."""
    read(dialect, draft_model="x", num_draft_tokens=4)


def test_nothing_is_in_two_lists():
    assert not OF_OTHER_SERVERS & (ABOUT_NO_ANSWER | NEUTRAL.keys() | EXTENSIONS)
