"""OpenAI's Responses API: its answers, whole and as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic, time
from typing import Any
from uuid import uuid4

from mlx_ddtree.server.blocks import BlockReply
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import Piece
from mlx_ddtree.server.json_response import named_event
from mlx_ddtree.server.reading import AnswerReader
from mlx_ddtree.server.replies import VENDOR, figures
from mlx_ddtree.server.responses_tools import Tools

SIGNS_OF_LIFE = 10.0
"""Seconds between events without news: clients do not count a stream's comments, and give a silent one up."""


@dataclass(frozen=True)
class TextKind:
    """How a kind of text is written: the type of its item, the item's list of parts, a part's type, and its events.

    part_event, text_event: what the names of events about a part and about its text begin with.
    index: what events call a part's place in the list.
    """

    item: str
    field: str
    part: str
    part_event: str
    text_event: str
    index: str


MESSAGE = TextKind("message", "content", "output_text", "content_part", "output_text", "content_index")
REASONING = TextKind("reasoning", "content", "reasoning_text", "content_part", "reasoning_text", "content_index")
SUMMARY = TextKind(
    *("reasoning", "summary", "summary_text", "reasoning_summary_part", "reasoning_summary_text", "summary_index")
)


class ResponsesReply(BlockReply):
    """One answer.

    echo: fields of the request that the response repeats.
    tools: of the request.
    summary: whether reasoning is handed out as a summary, which is what most clients show.
    """

    def __init__(
        self,
        model: str,
        reader: AnswerReader,
        finished: Callable[[dict[str, Any]], None] | None,
        echo: dict[str, Any],
        tools: Tools,
        summary: bool = False,
    ) -> None:
        super().__init__(model, reader, finished)
        begin = {"id": f"resp_{uuid4().hex}", "object": "response", "created_at": int(time())}
        self._head: dict[str, Any] = {**begin, **echo, "model": model}
        self._tools = tools
        self._kinds = {"content": MESSAGE, "reasoning": SUMMARY if summary else REASONING}
        self._kind = MESSAGE  # of the open item
        self._output: list[dict[str, Any]] = []
        self._events = 0
        self._last_sent = monotonic()

    def sent(self, chunk: dict[str, Any]) -> str:
        numbered = {**chunk, "sequence_number": self._events}
        self._events += 1
        self._last_sent = monotonic()
        return named_event(numbered)

    def waiting(self, done: int | None = None, total: int | None = None) -> str:
        if monotonic() - self._last_sent < SIGNS_OF_LIFE:
            return super().waiting(done, total)
        is_open = self._open is not None
        return self.sent(self._about_text("delta", delta="") if is_open else self._lifecycle("in_progress"))

    def refusal(self, error: ApiError) -> dict[str, Any]:
        return self._lifecycle("failed", error={"code": error.responses_code, "message": str(error)})

    def opening(self) -> list[dict[str, Any]]:
        return [self._lifecycle("in_progress", event="created"), self._lifecycle("in_progress")]

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        events = self.events_of(piece)
        return events if self.totals is None else [*events, self._lifecycle(self._status)]

    def whole(self) -> dict[str, Any]:
        response: dict[str, Any] = self._lifecycle(self._status)["response"]
        return response

    def begin(self, kind: str) -> Iterator[dict[str, Any]]:
        self._kind = self._kinds[kind]
        yield self._begun(_empty_item(self._kind.item))
        part = _part(self._kind, "")
        self._output[-1][self._kind.field] = [part]
        yield self._about_part("added", part=dict(part))

    def go_on(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        self._text_part["text"] += text
        yield self._about_text("delta", delta=text)

    def close(self, last: bool) -> Iterator[dict[str, Any]]:
        yield self._about_text("done", text=self._text_part["text"])
        yield self._about_part("done", part=dict(self._text_part))
        yield self._done(self._status if last else "completed")

    def call(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        item = self._tools.item(call, _item_id("fc"))
        field = "input" if "input" in item else "arguments"
        name = "custom_tool_call_input" if field == "input" else "function_call_arguments"
        text = item[field]
        yield self._begun({**item, field: "", "status": "in_progress"})
        self._output[-1][field] = text
        yield self._about_item(f"{name}.delta", delta=text)
        yield self._about_item(f"{name}.done", name=item["name"], **{field: text})
        yield self._done("completed")

    @property
    def _status(self) -> str:
        return "incomplete" if self.finish_reason == "length" else "completed"

    @property
    def _text_part(self) -> dict[str, Any]:
        part: dict[str, Any] = self._output[-1][self._kind.field][0]
        return part

    def _lifecycle(self, status: str, event: str | None = None, **changes: Any) -> dict[str, Any]:
        """An event about the response as a whole, which shows it as it is."""
        response = {**self._head, "status": status, "output": [dict(item) for item in self._output], **changes}
        if self.totals is not None:
            cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
            ended = {"completed_at": int(time())} if status == "completed" else {}
            said = {"usage": self._usage(), VENDOR: figures(self.totals)}
            response |= {"incomplete_details": cut, **ended, **said}
        return {"type": f"response.{event or status}", "response": response}

    def _usage(self) -> dict[str, Any]:
        """Tokens of the answer; how many of them are reasoning is its share of the text."""
        assert self.totals is not None
        generated = self.totals.generated_tokens
        lengths = {"reasoning": 0, "content": 0, "call": 0}
        for part in self._parts:
            lengths[part.kind] += len(part.text if part.call is None else str(part.call["function"]))
        thought = generated * lengths["reasoning"] / max(sum(lengths.values()), 1)
        return {
            "input_tokens": self.totals.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.totals.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": generated,
            "output_tokens_details": {"reasoning_tokens": round(thought)},
            "total_tokens": self.totals.prompt_tokens + generated,
        }

    def _begun(self, item: dict[str, Any]) -> dict[str, Any]:
        self._output.append(dict(item))
        return {"type": "response.output_item.added", "output_index": len(self._output) - 1, "item": item}

    def _done(self, status: str) -> dict[str, Any]:
        item = self._output[-1]
        item["status"] = status
        return {"type": "response.output_item.done", "output_index": len(self._output) - 1, "item": dict(item)}

    def _about_item(self, event: str, **said: Any) -> dict[str, Any]:
        place = {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1}
        return {"type": f"response.{event}", **place, **said}

    def _about_part(self, event: str, **said: Any) -> dict[str, Any]:
        return self._about_item(f"{self._kind.part_event}.{event}", **{self._kind.index: 0}, **said)

    def _about_text(self, event: str, **said: Any) -> dict[str, Any]:
        logprobs: dict[str, Any] = {"logprobs": []} if self._kind is MESSAGE else {}
        return self._about_item(f"{self._kind.text_event}.{event}", **{self._kind.index: 0}, **said, **logprobs)


def _item_id(prefix: str) -> str:
    return f"{prefix}_{uuid4().hex}"


def _empty_item(kind: str) -> dict[str, Any]:
    if kind == "message":
        return {"id": _item_id("msg"), "type": kind, "status": "in_progress", "role": "assistant", "content": []}
    return {"id": _item_id("rs"), "type": kind, "status": "in_progress", "summary": [], "encrypted_content": None}


def _part(kind: TextKind, text: str) -> dict[str, Any]:
    more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind is MESSAGE else {}
    return {"type": kind.part, "text": text, **more}
