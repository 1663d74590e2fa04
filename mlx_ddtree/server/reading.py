"""What an answer's text is made of: content, reasoning and tool calls, by mlx-lm's own parsers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from mlx_lm.generate import TextStateMachine, make_text_state_machine
from mlx_lm.server import ToolCallFormatter
from mlx_lm.tokenizer_utils import TokenizerWrapper


@dataclass(frozen=True)
class Part:
    """A part of an answer.

    text: of content and of reasoning.
    call: OpenAI's object of a tool call.
    """

    kind: Literal["content", "reasoning", "call"]
    text: str = ""
    call: dict[str, Any] | None = None


class AnswerReader:
    """Reads an answer while it comes.

    calls: tool calls so far.
    """

    def __init__(self, tokenizer: TokenizerWrapper, state: str = "normal", tools: list[Any] | None = None) -> None:
        self._state = make_text_state_machine(tokenizer).make_state(state)
        self._markers = tokenizer.tool_call_start or "", tokenizer.tool_call_end or ""
        self._format = ToolCallFormatter(tokenizer.tool_parser, tools, streaming=True)
        self._tool_text: str | None = None
        self.calls = 0

    def feed(self, text: str, last: bool = False) -> list[Part]:
        """The parts that became certain with `text`.  last: nothing follows."""
        self._state, segments = TextStateMachine.split(self._state, text)
        if last:
            self._state, rest, state = TextStateMachine.flush(self._state)
            segments = [*segments, (state, rest)]
        parts: list[Part] = []
        for state, piece in segments:
            if state == "tool":
                self._tool_text = (self._tool_text or "") + piece
                continue
            parts += self._called(ended=True)
            if piece and state in ("normal", "reasoning"):  # other states are a response format's own headers
                parts.append(Part("content" if state == "normal" else "reasoning", piece))
        return [*parts, *self._called(ended=False)] if last else parts

    def _called(self, ended: bool) -> list[Part]:
        """The call whose text is complete.  One that cannot be parsed is content, so that nothing is lost."""
        if self._tool_text is None:
            return []
        text = self._tool_text
        self._tool_text = None
        try:
            calls = self._format([text])
        except Exception as error:  # the parsers raise whatever a model's mistake leads them to
            logging.getLogger(__name__).info("a tool call cannot be parsed: %r", error)
            calls = []
        self.calls += len(calls)
        if calls:
            return [Part("call", call=call) for call in calls]
        start, end = self._markers
        closing = end if ended else ""
        return [Part("content", start + text + closing)]
