"""Answers of APIs in which text, reasoning and calls are blocks, one behind the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_ddtree.server.events import Piece
from mlx_ddtree.server.reading import AnswerReader, Part
from mlx_ddtree.server.replies import ChatReply


class BlockReply(ChatReply):
    """One answer.  A block goes on until something of another kind comes; a call is a block that comes whole.

    Blank lines and spaces between blocks belong to none of them; those at the answer's own begin and end stay.

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
        self._spaces = ""  # of the open block, or before the first one; they wait for more of its kind
        self._is_first = True

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
        elif part.kind == "content" or self._thinks:
            yield from self._text(part.kind, part.text)
        self._is_first = self._is_first and part.call is None and not part.text.strip()

    def _text(self, kind: str, text: str) -> Iterator[dict[str, Any]]:
        goes_on = self._open == kind
        keeps_spaces = goes_on or (self._is_first and kind == "content")
        text = self._spaces + text if keeps_spaces else text.lstrip()
        said = text.rstrip()
        if said and not goes_on:
            yield from self._close()
            self._open = kind
            yield from self.begin(kind)
        if said or keeps_spaces:
            self._spaces = text[len(said) :]
        if said:
            yield from self.go_on(kind, said)

    def _close(self, last: bool = False) -> Iterator[dict[str, Any]]:
        if self._open is not None:
            if last and self._spaces and self._open == "content":
                yield from self.go_on(self._open, self._spaces)
            self._open, self._spaces = None, ""
            yield from self.close(last)
