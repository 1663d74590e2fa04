"""OpenAI's Responses API, without its memory: its requests as chat requests, which everything behind works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from mlx_ddtree.server import fields
from mlx_ddtree.server.conversation import Conversation, blocks_of, joined, result_text, text_of, unreadable
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.parsing import body_of, refusal_of
from mlx_ddtree.server.requests import EXTENSIONS, ChatRequest, JsonObject, TokenLimit
from mlx_ddtree.server.responses_tools import INPUT, Tools

NOT_STORED = "answers are not kept here; send the whole conversation in input"
NOT_OFFERED = {
    "background": "answers are given while the client waits",
    "context_management": "the client shortens its conversation itself here",
    "conversation": NOT_STORED,
    "moderation": "nothing is moderated here",
    "previous_response_id": NOT_STORED,
    "prompt": "no prompts are kept here; send their text in instructions or input",
    "top_logprobs": "log-probabilities are offered by /v1/chat/completions",
}
"""Fields that would change an answer, and why they are refused."""
ABOUT_NO_ANSWER = fields.ABOUT_NO_ANSWER | {
    *("access_programs", "background_options", "client_metadata", "image", "max_tool_calls"),
}
"""Fields for bookkeeping and speed, and for tools and inputs that are refused themselves."""
TEXTS = ("input_text", "output_text", "text")
"""Types of blocks that are text."""
LOGPROBS = "message.output_text.logprobs"
PASSED_OVER = ("web_search_call", "file_search_call")
"""Items of other servers' answers that say nothing which a model here could read."""


class Reasoning(JsonObject):
    """How much the model is to reason, and whether what it thought is wanted as a summary."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class TextOptions(JsonObject):
    """The form of the answer."""

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesRequest(JsonObject):
    """POST /v1/responses; `input` and `tools` are read by hand, item by item."""

    model: str | None = None
    input: Any
    instructions: str | None = None
    max_output_tokens: TokenLimit | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    include: list[str] | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class ReadResponses:
    """A request of this API, read.

    request, body: the chat request that asks for the same, and its body.
    """

    given: ResponsesRequest
    tools: Tools
    request: ChatRequest
    body: dict[str, Any]

    @property
    def summary(self) -> bool:
        """Whether reasoning is wanted as a summary."""
        reasoning = self.given.reasoning
        return reasoning is not None and bool(reasoning.summary or reasoning.generate_summary)

    def echo(self) -> dict[str, Any]:
        """What a response repeats of its request."""
        given = self.given
        reasoning = {} if given.reasoning is None else given.reasoning.model_dump(include={"effort", "summary"})
        return {
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": given.instructions,
            "max_output_tokens": given.max_output_tokens,
            "metadata": given.metadata or {},
            "parallel_tool_calls": given.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None} | reasoning,
            "store": False,
            "temperature": given.temperature,
            "text": {"format": (given.text and given.text.format) or {"type": "text"}},
            "tool_choice": given.tool_choice or "auto",
            "tools": given.tools or [],
            "top_p": given.top_p,
            "truncation": "disabled",
            "usage": None,
        }


def read_responses(raw: bytes) -> ReadResponses:
    """A body as a chat request, and what its answer needs of it.  Raises ApiError 400."""
    body = body_of(raw)
    _check_fields(body)
    try:
        given = ResponsesRequest.model_validate(body)
    except ValidationError as error:
        raise refusal_of(error, ResponsesRequest) from None
    if LOGPROBS in (given.include or ()):
        raise ApiError(400, f"include: {LOGPROBS!r} is not offered; {NOT_OFFERED['top_logprobs']}", param="include")
    tools = Tools()
    for number, tool in enumerate(given.tools or []):
        tools.add(tool, f"tools.{number}")
    chat = {name: body[name] for name in EXTENSIONS & body.keys()} | _chat_body(given, tools)
    fields.check_fields(ChatRequest, chat)
    try:
        return ReadResponses(given, tools, ChatRequest.model_validate(chat), chat)
    except ValidationError as error:
        raise refusal_of(error, ChatRequest) from None


def _check_fields(body: Mapping[str, Any]) -> None:
    """Raises ApiError 400 for the first field that asks for what is not offered.

    Null asks for nothing, and so do 0, false and [].
    """
    for name, why in NOT_OFFERED.items():
        if body.get(name):
            raise ApiError(400, f"{name}: {why}; leave it out", param=name)
    fields.check_fields(ResponsesRequest, body, passing=ABOUT_NO_ANSWER | EXTENSIONS | NOT_OFFERED.keys())


def _chat_body(given: ResponsesRequest, tools: Tools) -> dict[str, Any]:
    """What a chat request calls differently.  Raises ApiError 400."""
    chat: dict[str, Any] = {"messages": _messages(given)}
    if given.max_output_tokens is not None:
        chat["max_tokens"] = given.max_output_tokens
    if tools.functions:
        chat["tools"] = tools.functions
    if given.tool_choice is not None:
        chat["tool_choice"] = _tool_choice(given.tool_choice)
    if given.parallel_tool_calls is not None:
        chat["parallel_tool_calls"] = given.parallel_tool_calls
    if given.reasoning is not None and given.reasoning.effort is not None:
        chat["reasoning_effort"] = given.reasoning.effort
    if given.text is not None and given.text.format is not None:
        chat["response_format"] = _response_format(given.text.format)
    return chat


def _tool_choice(choice: Any) -> Any:
    """A choice of one function as chats write it."""
    if isinstance(choice, dict) and choice.get("type") in ("function", "custom") and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


def _response_format(form: dict[str, Any]) -> dict[str, Any]:
    """A form of answers as chats write it."""
    if form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}


def _messages(given: ResponsesRequest) -> list[dict[str, Any]]:
    """The conversation as chat messages, the system prompt first.  Raises ApiError 400."""
    talk = Conversation()
    if given.instructions:
        talk.instruct(given.instructions)
    if isinstance(given.input, str):
        talk.ask(given.input)
        return talk.asked("input")
    if not isinstance(given.input, list):
        raise ApiError(400, "input: must be a text or a list of items", param="input")
    for number, item in enumerate(given.input):
        if not isinstance(item, dict):
            raise ApiError(400, f"input.{number}: must be an object", param="input")
        _add_item(talk, item, f"input.{number}")
    return talk.asked("input")


def _add_item(talk: Conversation, item: dict[str, Any], where: str) -> None:
    """An item of the input.  Raises ApiError 400 for one that cannot be read here."""
    kind = item.get("type", "message")
    if kind == "message":
        _add_message(talk, item, where)
    elif kind == "reasoning":
        _add_reasoning(talk, item, where)
    elif kind in ("function_call", "custom_tool_call"):
        _go_on_answering(talk)
        custom = kind == "custom_tool_call"
        arguments: Any = {INPUT: text_of(item, INPUT, where)} if custom else text_of(item, "arguments", where)
        talk.call(text_of(item, "call_id", where), text_of(item, "name", where), arguments)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        talk.result(text_of(item, "call_id", where), result_text(item.get("output"), f"{where}.output", TEXTS))
    elif kind == "item_reference":
        raise ApiError(400, f"{where}: {NOT_STORED}, not a reference to it", param="input")
    elif kind not in PASSED_OVER:
        message = f"{where}: an item of type {str(kind)[:40]!r} cannot be read here"
        raise ApiError(400, message, param="input")


def _add_message(talk: Conversation, item: dict[str, Any], where: str) -> None:
    role, content = item.get("role"), item.get("content")
    if role in ("system", "developer"):
        talk.instruct(joined(content, f"{where}.content", TEXTS))
    elif role == "user":
        talk.ask(joined(content, f"{where}.content", TEXTS))
    elif role == "assistant":
        answer = talk.answering
        if answer is None or (answer["content"] and not answer.get("tool_calls")):
            talk.begin_answer()
        for place, block in enumerate(blocks_of(content, f"{where}.content")):
            name = f"{where}.content.{place}"
            if block["type"] not in (*TEXTS, "refusal"):
                raise unreadable(block["type"], name)
            talk.say(text_of(block, "refusal" if block["type"] == "refusal" else "text", name))
    else:
        raise ApiError(400, f"{where}.role: must be 'user', 'assistant', 'system' or 'developer'", param="input")


def _add_reasoning(talk: Conversation, item: dict[str, Any], where: str) -> None:
    """What an earlier answer thought: its text, else its summary; what only its own server can read says nothing."""
    field = "content" if item.get("content") else "summary"
    text = joined(item.get(field) or [], f"{where}.{field}", ("reasoning_text", "summary_text"))
    answer = talk.answering
    if answer is None or answer["content"] or answer.get("tool_calls"):
        talk.begin_answer()
    if text:
        talk.think(text)


def _go_on_answering(talk: Conversation) -> None:
    if talk.answering is None:
        talk.begin_answer()
