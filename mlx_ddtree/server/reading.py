"""What an answer's text is made of: content, reasoning and tool calls, by mlx-lm's own parsers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from mlx_lm.generate import TextStateMachine, make_text_state_machine
from mlx_lm.server import ToolCallFormatter
from mlx_lm.tokenizer_utils import TokenizerWrapper

TOOL, TOOL_IN_REASONING = "tool", "tool in reasoning"
"""States of the text: mlx-lm's of a call, and that of a call within reasoning."""


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
    one_call: whether the answer ends with its first call; what comes behind that is dropped.
    """

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        state: str = "normal",
        tools: list[Any] | None = None,
        one_call: bool = False,
    ) -> None:
        self._state = _returning(make_text_state_machine(tokenizer).make_state(state), tokenizer)
        self._markers = tokenizer.tool_call_start or "", tokenizer.tool_call_end or ""
        self._format = ToolCallFormatter(tokenizer.tool_parser, tools, streaming=True)
        self._tool_text: str | None = None
        self._called_in: Literal["content", "reasoning"] = "content"
        self._one_call = one_call
        self.calls = 0

    @property
    def stop(self) -> str | None:
        """What ends the answer besides its own end: the end of its first call, if there is to be no other."""
        return (self._markers[1] or None) if self._one_call else None

    def feed(self, text: str, last: bool = False) -> list[Part]:
        """The parts that became certain with `text`.  last: nothing follows."""
        self._state, segments = TextStateMachine.split(self._state, text)
        if last:
            self._state, rest, state = TextStateMachine.flush(self._state)
            segments = [*segments, (state, rest)]
        parts: list[Part] = []
        for state, piece in segments:
            if state in (TOOL, TOOL_IN_REASONING):
                self._tool_text = (self._tool_text or "") + piece
                self._called_in = "content" if state == TOOL else "reasoning"
                continue
            parts += self._called(ended=True)
            if piece and state in ("normal", "reasoning"):  # other states are a response format's own headers
                parts += self._told("content" if state == "normal" else "reasoning", piece)
        return [*parts, *self._called(ended=False)] if last else parts

    def _told(self, kind: Literal["content", "reasoning"], text: str) -> list[Part]:
        return [] if self._one_call and self.calls else [Part(kind, text)]

    def _called(self, ended: bool) -> list[Part]:
        """The call whose text is complete.  One that cannot be parsed stays text, so that nothing is lost."""
        if self._tool_text is None:
            return []
        text = self._tool_text
        self._tool_text = None
        try:
            calls = self._format([text])
            calls = calls if all(isinstance(call["function"]["name"], str) for call in calls) else []
        except Exception as error:  # the parsers raise whatever a model's mistake leads them to
            logging.getLogger(__name__).info("a tool call cannot be parsed: %r", error)
            calls = []
        if not calls:
            start, end = self._markers
            return self._told(self._called_in, start + text + (end if ended else ""))
        if self._one_call:
            calls = calls[: 1 - min(self.calls, 1)]
        self.calls += len(calls)
        return [Part("call", call=call) for call in calls]


def _returning(state: Any, tokenizer: TokenizerWrapper) -> Any:
    """A runtime state of mlx-lm's machine in which reasoning goes on behind a call within it.

    mlx-lm takes what follows such a call for content, and the marker that ends the reasoning for a part of it.  Formats
    that say themselves what follows a call are left alone.
    """
    name, node, states, text = state
    if tokenizer.response_transitions or "reasoning" not in states or TOOL not in states:
        return state
    markers, targets = states["reasoning"]
    ends, after = states[TOOL]
    inner = {
        "reasoning": (markers, [TOOL_IN_REASONING if target == TOOL else target for target in targets]),
        TOOL_IN_REASONING: (ends, ["reasoning"] * len(after)),
    }
    return name, node, {**states, **inner}, text
