"""Reasoning put back where clients send answers without it.

Templates of reasoning models write the reasoning of the answers within a turn, and with `preserve_thinking` of all of
them.  OpenAI's clients keep an answer's content and its calls only, so the conversation that comes back is not the one
that the model had, and its cache ends where the first reasoning is missing.  What is remembered here belongs to a
conversation: it comes back where the same messages stand before the same answer, and nowhere else.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from threading import Lock
from typing import Any

MOST_BYTES = 32 * 2**20
"""Text that is remembered in all; the longest unused goes first."""
NAMES = ("reasoning_content", "reasoning", "thinking")
"""What clients call an answer's reasoning; templates call it by the first name."""


class Reasonings:
    """The reasoning of earlier answers by what stood before them, `most_bytes` of it; any thread may use it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[bytes, str] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the texts that are remembered."""
        return self._bytes

    def put_back(self, messages: Sequence[dict[str, Any]]) -> bytes:
        """Give answers without reasoning what is remembered of them, in place; the conversation's key."""
        before = b""
        for message in messages:
            before = key_after(before, message)
            if message.get("role") == "assistant":
                given = next((message[name] for name in NAMES if isinstance(message.get(name), str)), None)
                reasoning = self._find(before) if given is None else given
                if reasoning is not None:
                    message[NAMES[0]] = reasoning
        return before

    def keep(self, before: bytes, answer: Mapping[str, Any]) -> None:
        """Remember an answer's reasoning, if it has some and says anything by which it will be known.

        before: the key of the conversation that it answers.
        """
        reasoning = answer.get(NAMES[0])
        if not reasoning or not (answer.get("content") or answer.get("tool_calls")):
            return
        key = key_after(before, answer)
        with self._lock:
            self._bytes -= len(self._kept.pop(key, "").encode())
            self._kept[key] = reasoning
            self._bytes += len(reasoning.encode())
            while self._bytes > self.most_bytes:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped.encode())

    def _find(self, key: bytes) -> str | None:
        with self._lock:
            reasoning = self._kept.get(key)
            if reasoning is not None:
                self._kept.move_to_end(key)
            return reasoning


def key_after(before: bytes, message: Mapping[str, Any]) -> bytes:
    """The key of a conversation that one more message came to: of what it says, and not of how clients write it."""
    calls = []
    for call in message.get("tool_calls") or []:
        function = call["function"]
        calls.append([function["name"], _object(function.get("arguments"))])
    said = [message.get("role"), "".join((message.get("content") or "").split()), calls]
    return sha256(before + json.dumps(said, sort_keys=True).encode()).digest()


def _object(arguments: Any) -> Any:
    """A call's arguments, which are an object or its text."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        return arguments
