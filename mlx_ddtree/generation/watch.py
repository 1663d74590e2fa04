"""Look at an answer while it grows: in a notebook's cell, or on a terminal.

>>> answer = watch(stream_generate(pair, messages, max_tokens=200))
>>> answer.tree()  # the most telling round's
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import mlx.core as mx

from mlx_ddtree.errors import OptionError
from mlx_ddtree.generation.draw import TreeDrawing, draw_tree
from mlx_ddtree.generation.origins import Piece, Pieces
from mlx_ddtree.generation.response import GenerationResponse, RoundStatistics
from mlx_ddtree.pictures.marked_text import legend, marked

BETWEEN_UPDATES = 0.1
"""Seconds that a cell's picture stays as it is, at least."""


@dataclass(repr=False)
class Answer:
    """A whole answer with its rounds; a notebook shows its text with every token marked by where it came from.

    text: as `generate` returns it.
    responses: one a round, in order; their logits are given up, because those of a long answer are gigabytes.
    interrupted: whether it was ended from outside.
    """

    text: str = ""
    responses: list[GenerationResponse] = field(default_factory=list)
    interrupted: bool = False

    def __post_init__(self) -> None:
        self._pieces: list[list[Piece]] = []
        self._cut: Pieces | None = None

    def add(self, response: GenerationResponse) -> None:
        """The next round."""
        if self._cut is None:
            assert response.tokenizer is not None, "only responses of a stream can be watched"
            self._cut = Pieces(response.tokenizer)
        self.text += response.text
        self._pieces.append(self._cut.of(response))
        self.responses.append(replace(response, round=replace(response.round, logits=mx.zeros((0, 0)))))

    @property
    def tokens(self) -> list[int]:
        return [token for response in self.responses for token in response.tokens]

    @property
    def last(self) -> GenerationResponse:
        """The last response, which counts all rounds.  Raises OptionError before there is one."""
        if not self.responses:
            raise OptionError("this answer has no rounds")
        return self.responses[-1]

    @property
    def statistics(self) -> RoundStatistics:
        return self.last.statistics

    def tree(self, number: int | None = None) -> TreeDrawing:
        """The draft tree of a round; by default of the one that accepted most, if possible off the likeliest path.

        Raises OptionError for a number that no round has, and where nothing was drafted.
        """
        if number is not None:
            if not 0 <= number < len(self.responses):
                raise OptionError(f"there is no round {number}: this answer has 0 to {len(self.responses) - 1}")
            return draw_tree(self.responses[number])
        drafted = [response for response in self.responses if response.nodes]
        if not drafted:
            raise OptionError("no round of this answer drafted anything")
        turned = [r for r in drafted if r.round.path != list(range(len(r.round.path)))]
        return draw_tree(max(turned or drafted, key=lambda response: response.acceptance_length))

    def line(self) -> str:
        """The answer's figures."""
        if not self.responses:
            return "nothing yet"
        last = self.last
        parts = [f"{last.generation_tokens} tokens in {last.rounds} rounds"]
        if last.rounds:
            parts.append(f"{last.mean_acceptance_length:.1f} a round")
            parts.append(f"{last.generation_tps:.0f} tokens a second")
        if self.interrupted:
            parts.append("interrupted")
        elif last.finish_reason == "length":
            parts.append("cut at the limit")
        return ", ".join(parts)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Answer({self.line()}: {self.text[:60]!r}{'…' if len(self.text) > 60 else ''})"

    def _repr_html_(self) -> str:
        rounds = []
        room = len(self.text)
        for response, pieces in zip(self.responses, self._pieces, strict=True):
            shown = []
            for piece in pieces:
                text = piece.text[:room]  # a stop string is no part of the text
                room -= len(text)
                shown.append((text, piece.origin))
            counts = f"{response.nodes} drafted, {response.round.accepted} accepted"
            rounds.append((f"round {response.rounds}: {response.kind}, {counts}", shown))
        origins = dict.fromkeys(piece.origin for pieces in self._pieces for piece in pieces)
        return marked(rounds) + legend(origins, self.line())


def watch(stream: Iterable[GenerationResponse]) -> Answer:
    """Read `stream` to its end and show the answer as it grows; the whole of it.

    stream: what `stream_generate` or `Session.stream` returns.

    In a notebook the cell shows the text, its tokens marked by where they came from; elsewhere the text is printed.
    When the cell is interrupted the stream is closed, so that its session or prompt cache can be used again, and the
    interrupt goes on to the caller.
    """
    answer = Answer()
    view = _Cell(answer) if _in_notebook() else _Terminal()
    try:
        for response in stream:
            answer.add(response)
            view.show(response)
    except BaseException:
        answer.interrupted = True
        raise
    finally:
        close = getattr(stream, "close", None)
        if close is not None:  # a traceback that the notebook keeps would keep the stream open
            close()
        view.close()
    return answer


def _in_notebook() -> bool:
    """Whether this code runs in a cell of a notebook, which can change what it has shown."""
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class _Cell:
    """A cell's output that changes as the answer grows."""

    def __init__(self, answer: Answer) -> None:
        from IPython.display import display  # noqa: PLC0415 (a notebook has it)

        self._answer = answer
        self._handle: Any = display(answer, display_id=True)
        self._last = monotonic()

    def show(self, response: GenerationResponse) -> None:
        if monotonic() - self._last > BETWEEN_UPDATES:
            self.close()

    def close(self) -> None:
        self._handle.update(self._answer)
        self._last = monotonic()


class _Terminal:
    """Standard output."""

    def show(self, response: GenerationResponse) -> None:
        print(response.text, end="", flush=True)  # noqa: T201

    def close(self) -> None:
        print(flush=True)  # noqa: T201
