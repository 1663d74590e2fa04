"""A scorer with another tokenizer: its scores cross over by the characters that tokens stand for.

The target's tokens are decoded one after the other, so that each has its characters even where encoding the text again
would give other tokens.  The scorer's tokenizer encodes that text and says which characters its tokens cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from mlx_ddtree.errors import OptionError
from mlx_ddtree.pflash.scoring import Progress, Scorer, asking_end
from mlx_ddtree.pflash.selection import Selection

Spans = NDArray[np.int64]
"""(n, 2): first character and last + 1 of every token."""
LONG_WORD = 16
"""A word of more tokens than this is not made whole: minified code and scripts without spaces have no end."""


class BridgedScorer:
    """`scorer` reads what the target's tokens say in tokens of its own.

    scorer_tokenizer, tokenizer: the scorer's and the target's, mlx-lm's wrappers or transformers' fast tokenizers.
    closing: what the target's template puts after the text that asks (scoring.closing_tokens).
    """

    def __init__(self, scorer: Scorer, scorer_tokenizer: Any, tokenizer: Any, *, closing: Sequence[int] = ()) -> None:
        self.scorer, self.closing = scorer, tuple(closing)
        self._theirs, self._ours = fast_tokenizer(scorer_tokenizer), fast_tokenizer(tokenizer)

    def __call__(
        self, token_ids: Sequence[int], progress: Progress | None = None, *, tail_end: int | None = None
    ) -> NDArray[np.float32]:
        text, ours = token_spans(self._ours, token_ids)
        encoded = self._theirs.encode(text, add_special_tokens=False)
        theirs = np.array(encoded.offsets, np.int64).reshape(-1, 2)
        last = ours[asking_end(token_ids, self.closing, tail_end) - 1, 1]
        end = int(np.searchsorted(theirs[:, 0], last))
        scores = self.scorer(encoded.ids, progress, tail_end=end)
        return carry_over(scores, theirs, ours)


def fast_tokenizer(tokenizer: Any) -> Tokenizer:
    """The `tokenizers` object inside of mlx-lm's or transformers' wrappers.  Raises OptionError if there is none."""
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    inner = getattr(inner, "backend_tokenizer", inner)
    if not isinstance(inner, Tokenizer):
        raise OptionError(
            f"{type(inner).__name__} does not tell the characters of its tokens, so another tokenizer's scores cannot "
            "cross over; use a scorer with the target's own tokenizer, or the scorer 'lexical'"
        )
    return inner


def token_spans(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[str, Spans]:
    """What the tokens say, and the characters of each: (text, (S, 2) spans).

    Tokens that are parts of one character have all of it; tokens that say nothing have an empty span.
    """
    stream = DecodeStream(skip_special_tokens=False)
    pieces: list[str] = []
    spans = np.zeros((len(token_ids), 2), np.int64)
    place = waiting = 0  # characters so far; the first token that has not shown its character yet
    for i, token in enumerate(token_ids):
        piece = stream.step(tokenizer, int(token))
        if piece is not None:
            pieces.append(piece)
            spans[waiting : i + 1] = place, place + len(piece)
            place, waiting = place + len(piece), i + 1
    if waiting < len(token_ids):  # a text that ends inside a character
        rest = tokenizer.decode(list(map(int, token_ids[waiting:])), skip_special_tokens=False)
        pieces.append(rest)
        spans[waiting:] = place, place + len(rest)
    return "".join(pieces), spans


def carry_over(scores: NDArray[np.float32], theirs: Spans, ours: Spans) -> NDArray[np.float32]:
    """(m,) scores of tokens with the spans `theirs` -> (n,) of tokens with the spans `ours`: the largest of those that
    share a character.  A token without characters, or with none that was scored, has the score of the token before."""
    length = int(max(theirs.max(initial=0), ours.max(initial=0)))
    of_character = np.full(length + 1, -np.inf, np.float32)
    sizes = theirs[:, 1] - theirs[:, 0]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    np.maximum.at(of_character, np.repeat(theirs[:, 0], sizes) + within, np.repeat(scores, sizes))
    # reduceat takes pairs (first, end) and what lies between two pairs; every other result is a token's.
    best = np.maximum.reduceat(of_character, ours.ravel())[::2] if len(ours) else np.empty(0, np.float32)
    best = np.where((ours[:, 1] > ours[:, 0]) & np.isfinite(best), best, np.nan)
    known = np.maximum.accumulate(np.where(np.isnan(best), -1, np.arange(len(best))))
    return np.where(known >= 0, best[np.maximum(known, 0)], 0).astype(np.float32)


def whole_words(selection: Selection, text: str, spans: Spans) -> Selection:
    """The selection with the rest of every word, and of every character, that it cuts; `forced['words']` counts it.

    text, spans: of the prompt's tokens, from `token_spans`.  A word is what stands between white space; one of more
    than 16 tokens is cut nevertheless.
    """
    if not len(spans):
        return replace(selection, forced=selection.forced | {"words": 0})
    space = np.array([*(c.isspace() for c in text), True])
    first, end = spans[:, 0], spans[:, 1]
    in_character = first[1:] < end[:-1]
    in_word = in_character | ~(space[first[1:]] | space[np.maximum(end[:-1], 1) - 1])
    kept = np.zeros(selection.length, np.bool_)
    kept[selection.positions] = True
    for together, limit in ((in_word, LONG_WORD), (in_character, selection.length)):
        word = np.concatenate([[0], np.cumsum(~together)])
        small = np.bincount(word) <= limit
        kept |= (np.bincount(word, kept) > 0)[word] & small[word]
    positions = np.flatnonzero(kept).astype(np.int32)
    more = len(positions) - len(selection.positions)
    return replace(selection, positions=positions, forced=selection.forced | {"words": more})
