"""OpenAI's response objects, whole and in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from time import time
from typing import Any
from uuid import uuid4

from mlx_ddtree.machine import __version__
from mlx_ddtree.server.errors import ApiError
from mlx_ddtree.server.events import AnswerTotals, Piece
from mlx_ddtree.server.json_response import server_sent
from mlx_ddtree.server.logprobs import TokenLogprob, chat_format, text_format
from mlx_ddtree.server.reading import AnswerReader, Part

VENDOR = "mlx_ddtree"
"""The field of what OpenAI's format has no place for."""


class Reply:
    """What one answer's chunks and whole responses have in common.

    earlier: the request's answers before this one.
    is_last: whether no other one follows.
    number: among the answers to one prompt.
    """

    prefix, kind, chunk_kind = "", "", ""
    ending = "data: [DONE]\n\n"
    """What ends a stream."""

    def __init__(self, model: str, with_logprobs: bool, with_usage: bool) -> None:
        self.head = {
            "id": f"{self.prefix}-{uuid4().hex}",
            "created": int(time()),
            "model": model,
            "system_fingerprint": f"mlx_ddtree-{__version__}",
        }
        self.with_logprobs = with_logprobs
        self.with_usage = with_usage
        self.totals: AnswerTotals | None = None
        self.earlier: list[Reply] = []
        self.is_last = True
        self.number = 0

    def behind(self, earlier: list[Reply], is_last: bool, number: int) -> Reply:
        """This reply as one of a request's several, which are choices of one response."""
        self.earlier = list(earlier)
        self.is_last = is_last
        self.number = number
        if earlier:
            self.head = earlier[0].head
        return self

    def usage(self) -> dict[str, Any]:
        """Tokens of this answer and of those before it; the prompt of several answers counts once."""
        found = [(reply.number, reply.totals) for reply in (*self.earlier, self) if reply.totals is not None]
        firsts = [totals for number, totals in found if number == 0]
        prompt = sum(totals.prompt_tokens for totals in firsts)
        generated = sum(totals.generated_tokens for _, totals in found)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": sum(totals.cached_tokens for totals in firsts)},
        }

    def chunk(self, **choice: Any) -> dict[str, Any]:
        choice = {"index": len(self.earlier), "finish_reason": None, "logprobs": None, **choice}
        usage = {"usage": None} if self.with_usage else {}
        return {**self.head, "object": self.chunk_kind, "choices": [choice], **usage}

    def last_chunks(self, **choice: Any) -> list[dict[str, Any]]:
        """A chunk with the finish reason and the figures, then one with the usage if it was asked for."""
        assert self.totals is not None
        chunks = [self.chunk(**choice) | {VENDOR: figures(self.totals)}]
        if self.with_usage and self.is_last:
            chunks.append({**self.head, "object": self.chunk_kind, "choices": [], "usage": self.usage()})
        return chunks

    def whole(self) -> dict[str, Any]:
        """The response to a request that does not stream."""
        replies = [*self.earlier, self]
        shown = [figures(reply.totals) for reply in replies if reply.totals is not None]
        return {
            **self.head,
            "object": self.kind,
            "choices": [{"index": place, **reply.choice()} for place, reply in enumerate(replies)],
            "usage": self.usage(),
            VENDOR: shown[0] if len(shown) == 1 else {"answers": shown},
        }

    def opening(self) -> list[dict[str, Any]]:
        """Chunks before the first piece."""
        return []

    def sent(self, chunk: dict[str, Any]) -> str:
        """A chunk as a server-sent event."""
        return server_sent(chunk)

    def waiting(self, done: int | None = None, total: int | None = None) -> str:
        """What a stream gets while nothing is said; done, total: of the prompt's tokens, if these are being read."""
        return ": still here\n\n" if done is None else f": prompt {done}/{total}\n\n"

    def refusal(self, error: ApiError) -> dict[str, Any]:
        """An error in the middle of a stream."""
        return error.body()

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """Take note of a piece; the chunks that it makes."""
        raise NotImplementedError

    def choice(self) -> dict[str, Any]:
        raise NotImplementedError


class ChatReply(Reply):
    """A chat's answer; finished: told its message, once it is complete."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(
        self,
        model: str,
        with_logprobs: bool,
        with_usage: bool,
        reader: AnswerReader,
        finished: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        super().__init__(model, with_logprobs, with_usage)
        self._reader = reader
        self._finished = finished
        self._parts: list[Part] = []
        self._logprobs: list[TokenLogprob] = []
        self._sent = 0  # log-probabilities that are in chunks

    def opening(self) -> list[dict[str, Any]]:
        return [self.chunk(delta={"role": "assistant", "content": ""})]

    def note(self, piece: Piece) -> list[Part]:
        """Take note of a piece; the parts of the answer that became certain with it."""
        self.totals, text = piece.totals, piece.text
        if self.totals is not None and self.totals.stopped_by and self.totals.stopped_by == self._reader.stop:
            text += self.totals.stopped_by  # nobody asked for this stop string, and it belongs to the call
            self.totals = replace(self.totals, stopped_by=None)
        parts = self._reader.feed(text, last=self.totals is not None)
        self._parts += parts
        self._logprobs += piece.logprobs
        if self.totals is not None and self._finished is not None:
            self._finished(self.message())
        return parts

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        parts = self.note(piece)
        chunks = [self.chunk(delta=_delta(part), logprobs=self._new_logprobs()) for part in parts]
        if self.totals is None:
            return chunks
        last = {"delta": {}, "logprobs": self._new_logprobs(), "finish_reason": self.finish_reason}
        return chunks + self.last_chunks(**last)

    @property
    def finish_reason(self) -> str:
        assert self.totals is not None
        if self.totals.finish_reason == "stop" and self._reader.calls:
            return "tool_calls"
        return self.totals.finish_reason

    def message(self) -> dict[str, Any]:
        """The answer as a message."""
        content = "".join(part.text for part in self._parts if part.kind == "content")
        reasoning = "".join(part.text for part in self._parts if part.kind == "reasoning")
        calls = [part.call for part in self._parts if part.call is not None]
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if calls and not content:
            message["content"] = None
        if reasoning:
            message |= _reasoning(reasoning)
        if calls:
            message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
        return message

    def choice(self) -> dict[str, Any]:
        logprobs = chat_format(self._logprobs) if self.with_logprobs else None
        return {"message": self.message(), "logprobs": logprobs, "finish_reason": self.finish_reason}

    def _new_logprobs(self) -> dict[str, Any] | None:
        new = self._logprobs[self._sent :]
        self._sent = len(self._logprobs)
        return chat_format(new) if new else None


class TextReply(Reply):
    """A completion."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, with_logprobs: bool, with_usage: bool) -> None:
        super().__init__(model, with_logprobs, with_usage)
        self._text = ""
        self._logprobs: list[TokenLogprob] = []

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        self.totals = piece.totals
        offset = sum(len(token.text) for token in self._logprobs)
        logprobs = text_format(piece.logprobs, offset) if piece.logprobs else None
        self._text += piece.text
        self._logprobs += piece.logprobs
        if self.totals is not None:
            return self.last_chunks(text=piece.text, logprobs=logprobs, finish_reason=self.totals.finish_reason)
        return [self.chunk(text=piece.text, logprobs=logprobs)] if piece.text or logprobs else []

    def choice(self) -> dict[str, Any]:
        assert self.totals is not None
        logprobs = text_format(self._logprobs, 0) if self.with_logprobs else None
        return {"text": self._text, "logprobs": logprobs, "finish_reason": self.totals.finish_reason}


def _delta(part: Part) -> dict[str, Any]:
    if part.call is not None:
        return {"tool_calls": [part.call]}
    if part.kind == "content":
        return {"content": part.text}
    return _reasoning(part.text)


def _reasoning(text: str) -> dict[str, Any]:
    """Reasoning under mlx-lm's name, and under the one that most clients read."""
    return {"reasoning": text, "reasoning_content": text}


def figures(totals: AnswerTotals) -> dict[str, Any]:
    names = ("rounds", "acceptance_length", "prompt_tps", "generation_tps", "kinds", "compression", "kv_reads")
    return {name: value for name, value in asdict(totals).items() if name in names and value is not None}
