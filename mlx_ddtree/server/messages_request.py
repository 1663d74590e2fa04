"""Anthropic's Messages API: its requests as chat requests, which everything behind works on.

What is unknown at the top of a body is left alone, because agents send the newest fields to servers whose names they do
not know; what is known to change an answer and is not offered is refused by name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from mlx_ddtree.server.conversation import BETWEEN, Conversation, blocks_of, joined, result_text, text_of, unreadable
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.fields import NEUTRAL, check_options
from mlx_ddtree.server.parsing import body_of, refusal_of
from mlx_ddtree.server.requests import EXTENSIONS, ChatRequest, JsonObject, StopStrings, Text, TokenLimit

LOG = logging.getLogger(__name__)
NOT_OFFERED = {
    "container": "code is not run here",
    "mcp_servers": "the server calls no other servers; give their tools in tools",
    "thread": "conversations are not kept here; send all messages",
}
"""Fields that would change an answer, and why they are refused."""
ABOUT_NO_ANSWER = frozenset(
    """
    anthropic_beta anthropic_version betas billing_policy cache_control compaction context_management diagnostics
    fallback_credit_token fallbacks inference_geo metadata service_tier speed user_profile_id workspace_id
    """.split()
)
"""Fields for bookkeeping, for speed, and for shortening a conversation that the client shortens itself here."""


class ClientTool(JsonObject):
    """A tool that the client runs; Anthropic's own have another type."""

    name: Text
    description: str | None = None
    input_schema: dict[str, Any]


class ToolChoice(JsonObject):
    """Whether tools may be called, or must be, and several in one answer."""

    type: Literal["auto", "none", "any", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _forced(self) -> ToolChoice:
        if self.type == "tool" and not self.name:
            raise ValueError("tool_choice.name: is missing")
        return self


class OutputFormat(JsonObject):
    """The form of the answer's text."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class Thinking(JsonObject):
    """Whether the model is to reason before it answers."""

    type: Literal["enabled", "adaptive", "disabled"]


class OutputConfig(JsonObject):
    """How much the model is to reason, and in which form it answers."""

    effort: str | None = None
    format: OutputFormat | None = None


class MessagesRequest(JsonObject):
    """POST /v1/messages; `messages` and `system` are read by hand, block by block."""

    model: str | None = None
    max_tokens: TokenLimit | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    system: Any = None
    stream: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    stop_sequences: StopStrings | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None


def parse_messages(raw: bytes) -> tuple[ChatRequest, dict[str, Any]]:
    """A body as a chat request, and as such a request's body.  Raises ApiError 400."""
    body = body_of(raw)
    _check_fields(body)
    try:
        asked = MessagesRequest.model_validate(body)
        chat = {name: body[name] for name in EXTENSIONS & body.keys()} | _chat_body(asked)
        return ChatRequest.model_validate(chat), chat
    except ValidationError as error:
        raise refusal_of(error, MessagesRequest) from None


def _check_fields(body: Mapping[str, Any]) -> None:
    """Raises ApiError 400 for the first field that asks for what is not offered.  Null asks for nothing."""
    known = MessagesRequest.model_fields.keys() | ABOUT_NO_ANSWER | EXTENSIONS
    check_options(MessagesRequest, {name: value for name, value in body.items() if name not in known})
    for name, value in body.items():
        if value is None or name in known or name in NEUTRAL:
            continue
        if name in NOT_OFFERED:
            if value:
                raise ApiError(400, f"{name}: {NOT_OFFERED[name]}; leave it out", param=name)
            continue
        LOG.info("the field %r of a request is not known and left alone", name[:80])


def _chat_body(asked: MessagesRequest) -> dict[str, Any]:
    """The body of a chat request that asks for the same.  Raises ApiError 400."""
    chat: dict[str, Any] = {}
    for name in ("model", "max_tokens", "stream", "temperature", "top_p", "top_k"):
        if getattr(asked, name) is not None:
            chat[name] = getattr(asked, name)
    if asked.stop_sequences:
        chat["stop"] = asked.stop_sequences
    chat |= _forms(asked)
    if asked.tools:
        chat["tools"] = [_tool(tool, f"tools.{number}") for number, tool in enumerate(asked.tools)]
    if asked.thinking is not None:
        chat["chat_template_kwargs"] = {"enable_thinking": asked.thinking.type != "disabled"}
    if asked.output_config is not None and asked.output_config.effort is not None:
        chat["reasoning_effort"] = asked.output_config.effort
    chat["messages"] = _messages(asked)
    last = chat["messages"][-1]
    if last["role"] == "assistant" and last["content"] and not last.get("tool_calls"):
        chat["continue_final_message"] = True
    return chat


def _forms(asked: MessagesRequest) -> dict[str, Any]:
    """Which tools must be called, and which form the answer's text has; output_format is what it was called first."""
    forms: dict[str, Any] = {}
    choice = asked.tool_choice
    if choice is not None and choice.type == "tool":
        forms["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice is not None:
        forms["tool_choice"] = {"any": "required"}.get(choice.type, choice.type)
    if choice is not None and choice.disable_parallel_tool_use:
        forms["parallel_tool_calls"] = False
    output = asked.output_format or (asked.output_config and asked.output_config.format)
    if output:
        forms["response_format"] = {"type": "json_schema", "json_schema": {"schema": output.json_schema}}
    return forms


def _tool(tool: dict[str, Any], name: str) -> dict[str, Any]:
    """A tool as OpenAI's function.  Raises ApiError 400 for one that Anthropic's servers run."""
    if tool.get("type") not in (None, "custom"):
        kind = str(tool["type"])[:60]
        message = f"{name}: {kind!r} is run by Anthropic's servers; only tools with an input_schema work here"
        raise ApiError(400, message, param="tools")
    try:
        known = ClientTool.model_validate(tool)
    except ValidationError as error:
        raise refusal_of(error, ClientTool, f"{name}.") from None
    described = {} if known.description is None else {"description": known.description}
    return {"type": "function", "function": {"name": known.name, **described, "parameters": known.input_schema}}


def _messages(asked: MessagesRequest) -> list[dict[str, Any]]:
    """The conversation as chat messages, the system prompt first.  Raises ApiError 400."""
    talk = Conversation()
    if asked.system:
        talk.instruct(joined(asked.system, "system"))
    for number, message in enumerate(asked.messages):
        where = f"messages.{number}"
        role = message.get("role")
        blocks = list(blocks_of(message.get("content"), f"{where}.content"))
        if role == "assistant":
            talk.begin_answer()
            for place, block in enumerate(blocks):
                _add_to_answer(talk, block, f"{where}.content.{place}")
        elif role in ("user", "system"):
            _add_user(talk, blocks, where)
        else:
            raise ApiError(400, f"{where}.role: must be 'user' or 'assistant'", param="messages")
    return talk.asked("messages")


def _add_to_answer(talk: Conversation, block: dict[str, Any], name: str) -> None:
    """A block of an earlier answer: of its text, of its reasoning, or a call."""
    kind = block["type"]
    if kind == "text":
        talk.say(text_of(block, "text", name))
    elif kind == "thinking":
        talk.think(text_of(block, "thinking", name))
    elif kind == "tool_use":
        talk.call(text_of(block, "id", name), text_of(block, "name", name), block.get("input") or {})
    elif kind != "redacted_thinking":
        raise unreadable(kind, name)


def _add_user(talk: Conversation, blocks: list[dict[str, Any]], where: str) -> None:
    """A user's turn: what tools gave, each a message, and behind them what is said.

    Instructions that agents put between messages are such a turn's, because templates take a system prompt at the
    beginning only.
    """
    texts: list[str] = []
    for place, block in enumerate(blocks):
        name = f"{where}.content.{place}"
        if block["type"] == "text":
            texts.append(text_of(block, "text", name))
        elif block["type"] == "tool_result":
            _add_result(talk, block, name)
        else:
            raise unreadable(block["type"], name)
    if texts:
        talk.ask(BETWEEN.join(texts))


def _add_result(talk: Conversation, block: dict[str, Any], where: str) -> None:
    """What a tool gave."""
    text = result_text(block.get("content") or "", f"{where}.content")
    if block.get("is_error"):
        text = f"Error: {text}"
    talk.result(text_of(block, "tool_use_id", where), text)
