"""Where the text ends: end tokens, stop strings, the length limit; and its streaming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mlx_lm.tokenizer_utils import TokenizerWrapper


class Text(Protocol):
    """What the loop over rounds asks the text that they write."""

    remaining: int
    """Tokens that may still follow; negative: any number."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""

    def keep(self, tokens: Sequence[int], /) -> int:
        """How many of `tokens`, the next ones, belong to the text."""


class EndlessText:
    """A text that nothing ends, of rounds that are measured and not read."""

    remaining = -1
    ended = False

    def keep(self, tokens: Sequence[int]) -> int:
        """All of them."""
        return len(tokens)


class TextStream:
    """Turns a round's tokens into text and decides how many of them belong to it.

    tokenizer: what writes the tokens.
    remaining: tokens that may still follow; negative: any number.
    finish_reason: None while the text goes on, then 'stop' or 'length'.
    """

    def __init__(self, tokenizer: TokenizerWrapper, max_tokens: int, stop: Sequence[str] = ()) -> None:
        self.tokenizer = tokenizer
        self.remaining = max_tokens
        self._detokenizer = tokenizer.detokenizer
        self._end_tokens = tokenizer.eos_token_ids
        self._stop = StopStrings(stop)
        self._text = ""
        self.finish_reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self.finish_reason is not None

    @property
    def stopped_by(self) -> str | None:
        """The stop string that has ended the text; None where nothing or something else has."""
        return self._stop.found

    def keep(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` belong to the text; what they say is then ready for `take`."""
        for count, token in enumerate(tokens, 1):
            self._add(token)
            if self.finish_reason is not None:
                return count
        return len(tokens)

    def take(self) -> str:
        """The text that became certain since the last call."""
        text, self._text = self._text, ""
        return text

    def _add(self, token: int) -> None:
        self.remaining -= 1
        ended = token in self._end_tokens
        if not ended:
            self._detokenizer.add_token(token)
            self._text += self._stop.feed(self._detokenizer.last_segment)
        if ended or self.remaining == 0:
            self._detokenizer.finalize()
            self._text += self._stop.feed(self._detokenizer.last_segment) + self._stop.flush()
            self.finish_reason = "stop" if ended or self._stop.found else "length"
        elif self._stop.found:
            self.finish_reason = "stop"


class StopStrings:
    """Passes text through up to the first stop string, holding back what may become one.

    found: that string, once it was there.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.found: str | None = None

    def feed(self, segment: str) -> str:
        """The text that is now known to lie before any stop string."""
        if self.found is not None:
            return ""
        text = self._held + segment
        hits = [(text.find(s), s) for s in self._stop if s in text]
        if hits:
            place, self.found = min(hits, key=lambda hit: hit[0])
            self._held = ""
            return text[:place]
        held = max((_overlap(text, s) for s in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
