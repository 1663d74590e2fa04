"""Anthropic's Messages API: its answers, whole and as events, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from mlx_ddtree.server.blocks import BlockReply
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import AnswerTotals, Piece
from mlx_ddtree.server.json_response import named_event
from mlx_ddtree.server.reading import AnswerReader

_BLOCKS = {"content": ("text", "text"), "reasoning": ("thinking", "thinking")}
"""A part's kind -> the type of its block, and the field with its text."""


class MessagesReply(BlockReply):
    """One answer.

    prompt_tokens: of its prompt.
    thinks: whether reasoning is handed out; else it is dropped.
    """

    def __init__(
        self,
        model: str,
        reader: AnswerReader,
        finished: Callable[[dict[str, Any]], None] | None,
        prompt_tokens: int,
        thinks: bool = True,
    ) -> None:
        super().__init__(model, reader, finished, thinks)
        self._prompt_tokens = prompt_tokens
        self._message = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": model}
        self._blocks: list[dict[str, Any]] = []

    def sent(self, chunk: dict[str, Any]) -> str:
        return named_event(chunk)

    def waiting(self, done: int | None = None, total: int | None = None) -> str:
        """What is sent while nothing is said."""
        return self.sent({"type": "ping"})

    def refusal(self, error: ApiError) -> dict[str, Any]:
        """An error in the middle of a stream."""
        return error.messages_body()

    def opening(self) -> list[dict[str, Any]]:
        usage = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        message: dict[str, Any] = {
            **self._message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return [{"type": "message_start", "message": message}]

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        events = self.events_of(piece)
        if self.totals is None:
            return events
        delta = {"stop_reason": self.stop_reason, "stop_sequence": self.totals.stopped_by}
        ended = {"type": "message_delta", "delta": delta, "usage": usage(self.totals)}
        return [*events, ended, {"type": "message_stop"}]

    def whole(self) -> dict[str, Any]:
        assert self.totals is not None
        ended = {"stop_reason": self.stop_reason, "stop_sequence": self.totals.stopped_by}
        return {**self._message, "content": self._blocks, **ended, "usage": usage(self.totals)}

    @property
    def stop_reason(self) -> str:
        """Why the answer ended, in this API's words."""
        assert self.totals is not None
        if self.totals.stopped_by is not None:
            return "stop_sequence"
        return {"length": "max_tokens", "tool_calls": "tool_use", "stop": "end_turn"}[self.finish_reason]

    def begin(self, kind: str) -> Iterator[dict[str, Any]]:
        block, field = _BLOCKS[kind]
        yield self._begin({"type": block, field: ""} | ({"signature": ""} if kind == "reasoning" else {}))

    def go_on(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        block, field = _BLOCKS[kind]
        self._blocks[-1][field] += text
        yield self._delta({"type": f"{block}_delta", field: text})

    def close(self, last: bool) -> Iterator[dict[str, Any]]:
        yield {"type": "content_block_stop", "index": len(self._blocks) - 1}

    def call(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield self._begin({"type": "tool_use", "id": call["id"], "name": name, "input": {}})
        self._blocks[-1]["input"] = json.loads(arguments)
        yield self._delta({"type": "input_json_delta", "partial_json": arguments})
        yield from self.close(last=False)

    def _begin(self, block: dict[str, Any]) -> dict[str, Any]:
        self._blocks.append(dict(block))
        return {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}


def usage(totals: AnswerTotals) -> dict[str, Any]:
    """Tokens as this API counts them: those from a cache are no input tokens."""
    return {
        "input_tokens": totals.prompt_tokens - totals.cached_tokens,
        "cache_read_input_tokens": totals.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": totals.generated_tokens,
    }
