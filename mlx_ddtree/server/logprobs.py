"""Log-probabilities of an answer's tokens, in OpenAI's two formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.tokenizer_utils import TokenizerWrapper

LOWEST = -9999.0
"""In place of minus infinity, which JSON does not have."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token as text, its log-probability, and the most probable ones at its place, best first."""

    text: str
    logprob: float
    top: list[tuple[str, float]]


def token_logprobs(
    tokenizer: TokenizerWrapper, tokens: Sequence[int], logprobs: mx.array, top: int
) -> list[TokenLogprob]:
    """Log-probabilities of an answer's tokens, in the thread that decodes.

    logprobs: (len(tokens), V), floating.
    top: how many of the most probable tokens to report at each place.
    """
    if not tokens:
        return []
    rows = logprobs[: len(tokens)].astype(mx.float32)
    chosen: Any = mx.take_along_axis(rows, mx.array(list(tokens))[:, None], axis=-1)[:, 0].tolist()
    best: list[list[tuple[float, int]]] = [[] for _ in tokens]
    if top:
        count = min(top, rows.shape[-1])
        places = mx.argpartition(-rows, kth=count - 1, axis=-1)[:, :count]
        ids: Any = places.tolist()
        values: Any = (-mx.take_along_axis(rows, places, axis=-1)).tolist()
        best = [sorted(zip(*row, strict=True)) for row in zip(values, ids, strict=True)]
    return [
        TokenLogprob(
            token_text(tokenizer, token),
            max(value, LOWEST),
            [(token_text(tokenizer, i), max(-negative, LOWEST)) for negative, i in others],
        )
        for token, value, others in zip(tokens, chosen, best, strict=True)
    ]


def token_text(tokenizer: TokenizerWrapper, token: int) -> str:
    """What a token adds to a text; sentencepiece's decoder drops the space before a word that stands alone."""
    text = str(tokenizer.decode([token]))
    piece = tokenizer.convert_ids_to_tokens(token)
    if isinstance(piece, str) and piece.startswith("▁") and not text.startswith(" "):
        return f" {text}"
    return text


def chat_format(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`choices[0].logprobs` of a chat."""

    def entry(text: str, value: float) -> dict[str, Any]:
        # A token may be a part of a character; the text then says nothing of its bytes.
        return {"token": text, "logprob": value, "bytes": None if "\ufffd" in text else list(text.encode())}

    content = [entry(t.text, t.logprob) | {"top_logprobs": [entry(*other) for other in t.top]} for t in tokens]
    return {"content": content, "refusal": None}


def text_format(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """`choices[0].logprobs` of a completion, whose next token begins after `offset` characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [dict(reversed(t.top)) for t in tokens],
        "text_offset": offsets,
    }
