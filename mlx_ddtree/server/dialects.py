"""The APIs that the server speaks: how each reads requests and writes answers.  Everything between is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.messages_reply import MessagesReply
from mlx_ddtree.server.messages_request import parse_messages
from mlx_ddtree.server.parsing import parse
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.replies import ChatReply, Reply, TextReply
from mlx_ddtree.server.requests import ChatRequest, TextRequest
from mlx_ddtree.server.responses_reply import ResponsesReply
from mlx_ddtree.server.responses_request import ReadResponses, read_responses


@dataclass(frozen=True)
class Asked:
    """A body, read.

    request, body: a completion's, or a chat's, which what is asked for in other APIs has become.
    given: what else the answer needs of the request.
    """

    request: Any
    body: dict[str, Any]
    given: Any = None


@dataclass(frozen=True)
class Beginning:
    """What is known of an answer before its first token.

    model: the name that the client used.
    reader: of a chat's answer.
    finished: told the answer's message, once it is complete.
    prompt_tokens: of its prompt.
    """

    model: str
    asked: Asked
    reader: AnswerReader
    finished: Callable[[dict[str, Any]], None] | None
    prompt_tokens: int


@dataclass(frozen=True, eq=False)
class Dialect:
    """One API.

    name: in metrics.
    read: makes a body a request.  Raises ApiError 400.
    reply: what an answer is told in.
    counted: the response to a request for a prompt's number of tokens, where there is one.
    foreign: what the names of models begin with that clients use beside the one that they were told.
    names: fields of chats -> what this API calls them.
    """

    name: str
    read: Callable[[bytes], Asked]
    reply: Callable[[Beginning], Reply]
    counted: Callable[[int], dict[str, Any]] | None = None
    foreign: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, error: ApiError) -> ApiError:
        """A refusal of a chat with this API's names of its fields."""
        theirs = error.param or ""
        if theirs not in self.names:
            return error
        name = self.names[theirs]
        text = name + str(error).removeprefix(theirs) if str(error).startswith(theirs) else str(error)
        return ApiError(error.status, text, name.partition(".")[0], error.code, error.headers)


def _read_chat(raw: bytes) -> Asked:
    return Asked(*parse(ChatRequest, raw))


def _read_text(raw: bytes) -> Asked:
    return Asked(*parse(TextRequest, raw))


def _read_messages(raw: bytes) -> Asked:
    return Asked(*parse_messages(raw))


def _read_responses(raw: bytes) -> Asked:
    read = read_responses(raw)
    return Asked(read.request, read.body, read)


def _chat_reply(begin: Beginning) -> Reply:
    request = begin.asked.request
    return ChatReply(begin.model, request.top is not None, request.wants_usage, begin.reader, begin.finished)


def _text_reply(begin: Beginning) -> Reply:
    request = begin.asked.request
    return TextReply(begin.model, request.top is not None, request.wants_usage)


def _messages_reply(begin: Beginning) -> Reply:
    thinks = (begin.asked.request.chat_template_kwargs or {}).get("enable_thinking", True)
    return MessagesReply(begin.model, begin.reader, begin.finished, begin.prompt_tokens, thinks)


def _responses_reply(begin: Beginning) -> Reply:
    given: ReadResponses = begin.asked.given
    return ResponsesReply(begin.model, begin.reader, begin.finished, given.echo(), given.tools, given.summary)


CHAT = Dialect("chat", _read_chat, _chat_reply)
TEXT = Dialect("completions", _read_text, _text_reply)
MESSAGES = Dialect(
    "messages",
    _read_messages,
    _messages_reply,
    counted=lambda count: {"input_tokens": count},
    foreign=("claude",),
)
RESPONSES = Dialect(
    "responses",
    _read_responses,
    _responses_reply,
    counted=lambda count: {"object": "response.input_tokens", "input_tokens": count},
    names={"max_tokens": "max_output_tokens", "response_format": "text.format", "messages": "input"},
)
