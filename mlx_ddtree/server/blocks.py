"""Answers of APIs in which text, reasoning and calls are blocks, one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_ddtree.server.events import Piece
from mlx_ddtree.server.reading import AnswerReader, Part
from mlx_ddtree.server.replies import ChatReply


class BlockReply(ChatReply):
    """One answer.  A block goes on until something of another kind comes; a call is a block that comes whole.

    Blank text is kept until more of its kind follows, so that no block is empty to the eye.

    thinks: whether reasoning is handed out; else it is dropped.
    """

    ending = ""

    def __init__(
        self,
        model: str,
        reader: AnswerReader,
        finished: Callable[[dict[str, Any]], None] | None,
        thinks: bool = True,
    ) -> None:
        super().__init__(model, False, False, reader, finished)
        self._thinks = thinks
        self._open: str | None = None  # the kind of the block that goes on
        self._blank: tuple[str, str] = ("", "")  # a kind, and its blank text that waits

    def events_of(self, piece: Piece) -> list[dict[str, Any]]:
        """The events of what became certain with a piece; the last piece closes the last block."""
        events = [event for part in self.note(piece) for event in self._part(part)]
        return events if self.totals is None else [*events, *self._close(last=True)]

    def begin(self, kind: str) -> Iterator[dict[str, Any]]:
        """The events of a new block of 'content' or 'reasoning'."""
        raise NotImplementedError

    def go_on(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        """The events of text that comes to the open block."""
        raise NotImplementedError

    def close(self, last: bool) -> Iterator[dict[str, Any]]:
        """The events of the open block's end; last: whether the answer ends with it."""
        raise NotImplementedError

    def call(self, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of a call, OpenAI's object."""
        raise NotImplementedError

    def _part(self, part: Part) -> Iterator[dict[str, Any]]:
        if part.call is not None:
            yield from self._close()
            yield from self.call(part.call)
            return
        if part.kind == "reasoning" and not self._thinks:
            return
        text = part.text
        if self._open != part.kind:
            kind, blank = self._blank
            text = blank + text if kind == part.kind else text
            self._blank = (part.kind, text)
            if not text.strip():
                return
            yield from self._close()
            self._open = part.kind
            yield from self.begin(part.kind)
        self._blank = ("", "")
        yield from self.go_on(part.kind, text)

    def _close(self, last: bool = False) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            self._open = None
            yield from self.close(last)
