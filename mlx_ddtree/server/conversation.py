"""Chat messages, put together from the pieces in which other APIs have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlx_ddtree.server.errors import ApiError

BETWEEN = "\n\n"
"""What stands between texts that become one message."""


class Conversation:
    """A conversation in the making; messages: what there is so far, as chats have it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}  # tools' names by the ids of their calls

    def instruct(self, text: str) -> None:
        """Instructions: at the beginning the system prompt, later a part of the user's turn.

        Templates take a system prompt at the beginning only, and agents put instructions between messages.
        """
        if not self.messages:
            self.messages.append({"role": "system", "content": text})
        elif len(self.messages) == 1 and self.messages[0]["role"] == "system":
            self.messages[0]["content"] += BETWEEN + text
        else:
            self.ask(text)

    def ask(self, text: str) -> None:
        """What a user says, joined to what was said just before."""
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages[-1]["content"] += BETWEEN + text
        else:
            self.messages.append({"role": "user", "content": text})

    def begin_answer(self) -> None:
        self.messages.append({"role": "assistant", "content": ""})

    @property
    def answering(self) -> dict[str, Any] | None:
        """The answer that the conversation ends with, if it does."""
        last = self.messages[-1] if self.messages else None
        return last if last is not None and last["role"] == "assistant" else None

    def say(self, text: str) -> None:
        """A part of the answer."""
        self.messages[-1]["content"] += text

    def think(self, text: str) -> None:
        """A part of the answer's reasoning."""
        answer = self.messages[-1]
        answer["reasoning_content"] = answer.get("reasoning_content", "") + text

    def call(self, number: str, name: str, arguments: Any) -> None:
        """A call of the answer; number: its id."""
        self._names[number] = name
        function = {"name": name, "arguments": arguments}
        calls = self.messages[-1].setdefault("tool_calls", [])
        calls.append({"id": number, "type": "function", "function": function})

    def result(self, number: str, text: str) -> None:
        """What the tool gave that was called under this id."""
        message = {"role": "tool", "tool_call_id": number, "content": text}
        name = {"name": self._names[number]} if number in self._names else {}
        self.messages.append(message | name)

    def asked(self, field: str) -> list[dict[str, Any]]:
        """The messages, which are a question.  field: where they came from.  Raises ApiError 400."""
        if not self.messages or self.messages[-1]["role"] == "system":
            raise ApiError(400, f"{field}: nothing is asked", param=field)
        return self.messages


def blocks_of(content: Any, where: str, text_type: str = "text") -> Iterator[dict[str, Any]]:
    """A content's blocks; a text is one of the type `text_type`.  where: its name in errors.  Raises ApiError 400."""
    if isinstance(content, str):
        content = [{"type": text_type, "text": content}]
    if not isinstance(content, list):
        raise ApiError(400, f"{where}: must be a text or a list of blocks", param=field_of(where))
    for place, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise ApiError(400, f"{where}.{place}: must be a block with a type", param=field_of(where))
        yield block


def joined(content: Any, where: str, text_types: tuple[str, ...] = ("text",)) -> str:
    """The text of a content that may hold nothing else.  Raises ApiError 400."""
    texts = []
    for place, block in enumerate(blocks_of(content, where, text_types[0])):
        if block["type"] not in text_types:
            raise unreadable(block["type"], f"{where}.{place}")
        texts.append(text_of(block, "text", f"{where}.{place}"))
    return BETWEEN.join(texts)


def result_text(content: Any, where: str, text_types: tuple[str, ...] = ("text",)) -> str:
    """The text of what a tool gave.  Raises ApiError 400.

    The model is told of an image or a document that it cannot see: were it refused, an agent's every request would be
    refused from then on.
    """
    texts = []
    for place, block in enumerate(blocks_of(content, where, text_types[0])):
        if block["type"] in text_types:
            texts.append(text_of(block, "text", f"{where}.{place}"))
        else:
            texts.append(f"[a block of type {block['type'][:40]!r}, which cannot be read here]")
    return BETWEEN.join(texts)


def text_of(block: Mapping[str, Any], key: str, where: str) -> str:
    """A text in a block.  Raises ApiError 400."""
    value = block.get(key)
    if not isinstance(value, str):
        raise ApiError(400, f"{where}.{key}: must be a text", param=field_of(where))
    return value


def unreadable(kind: str, where: str) -> ApiError:
    message = f"{where}: a block of type {kind[:40]!r} cannot be read here: no images, documents or tools of servers"
    return ApiError(400, message, param=field_of(where))


def field_of(where: str) -> str:
    """The field of a body that a name like `messages.0.content` begins with."""
    return where.partition(".")[0]
