"""Conversations as clients keep them: nothing of them vanishes, and nothing in them ends the conversation."""

import json

import pytest

from mlx_ddtree import load
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.parsing import parse
from mlx_ddtree.server.prompt import prepare
from mlx_ddtree.server.requests import ChatRequest

KNOWN_ROLES = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}[{{ m.role }}]{{ m.content }}{% endif %}"
    "{% endfor %}"
)
WITH_DEVELOPER = "{% for m in messages %}[{{ 'boss' if m.role == 'developer' else m.role }}]{{ m.content }}{% endfor %}"
WITH_CALLS = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}({{ c.function.name }}"
    "{% for k, v in c.function.arguments | items %} {{ k }}={{ v }}{% endfor %}){% endfor %}{% endfor %}"
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role, please.') }}{% endif %}{{ messages[0].content }}"
ASK = {"role": "user", "content": "hi"}


@pytest.fixture
def prepared():
    """What a template makes of messages and of a request's other fields."""
    pair = load()

    def render(template, messages, **fields):
        pair.tokenizer.chat_template = template
        request, body = parse(ChatRequest, json.dumps({"messages": messages} | fields).encode())
        return pair.tokenizer.decode(prepare(pair, request, body, {}).ids)

    return render


@pytest.fixture
def rendered(prepared):
    """What a template makes of messages."""
    return lambda template, *messages: prepared(template, messages)


def test_a_developers_instructions_reach_the_model(rendered):
    developer = {"role": "developer", "content": "French only."}
    assert rendered(KNOWN_ROLES, developer, ASK) == "[system]French only.[user]hi"
    assert rendered(WITH_DEVELOPER, developer, ASK) == "[boss]French only.[user]hi"


@pytest.mark.parametrize("arguments", ["", " ", "null", None, "{}", {}])
def test_a_call_without_arguments_is_one(rendered, arguments):
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": arguments}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert rendered(WITH_CALLS, ASK, answer, {"role": "tool", "content": "12"}) == "hi(now)12"
    del call["function"]["arguments"]
    assert rendered(WITH_CALLS, ASK, answer) == "hi(now)"


def test_arguments_come_as_an_object(rendered):
    call = {"function": {"name": "at", "arguments": '{"hour": 5}'}}
    assert rendered(WITH_CALLS, ASK, {"role": "assistant", "tool_calls": [call]}) == "hi(at hour=5)"


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "5"])
def test_arguments_that_are_none_are_refused_with_their_place(rendered, arguments):
    answer = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    with pytest.raises(ApiError, match=r"^messages\.1\.tool_calls\.0\.function\.arguments: .*JSON") as refusal:
        rendered(WITH_CALLS, ASK, answer)
    assert (refusal.value.status, refusal.value.param) == (400, "messages")


def test_a_reasoning_effort_that_the_template_does_not_know_is_left_out(prepared):
    template = (
        "{% if reasoning_effort not in ('low', 'high') %}{{ raise_exception('No such effort.') }}{% endif %}"
        "{{ reasoning_effort }} {{ messages[0].content }}"
    ).replace("not in ('low', 'high')", "is defined and reasoning_effort not in ('low', 'high')")
    assert prepared(template, [ASK], reasoning_effort="high") == "high hi"
    assert prepared(template, [ASK], reasoning_effort="maximal") == " hi"


def test_an_answer_that_was_begun_goes_on_where_it_ends(prepared):
    template = KNOWN_ROLES.replace(
        "{% endfor %}", "{% if not loop.last or add_generation_prompt %}.{% endif %}{% endfor %}"
    )
    begun = [ASK, {"role": "assistant", "content": "Well"}]
    assert prepared(template, begun) == "[user]hi.[assistant]Well."
    assert prepared(template, begun, continue_final_message=True) == "[user]hi.[assistant]Well"


def test_a_template_that_refuses_says_why(rendered):
    with pytest.raises(
        ApiError, match=r"^messages: the chat template cannot use them: No system role, please\.$"
    ) as no:
        rendered(STRICT, {"role": "system", "content": "x"}, ASK)
    assert (no.value.status, no.value.param) == (400, "messages")
