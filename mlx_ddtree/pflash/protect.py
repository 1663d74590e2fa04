"""Which tokens of a prompt no compression drops: the template's own, the system prompt, tools, what a user marked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper
from numpy.typing import NDArray

from mlx_ddtree.errors import PromptError
from mlx_ddtree.pflash.bridge import fast_tokenizer, token_spans

Span = tuple[int, int]
"""(first, last + 1)."""
SPEAKERS = ("user", "assistant")
"""Whose contents may be shortened."""
QUESTION = 256
"""A last user message of at most so many tokens is the question itself, and stays."""
_MARK = re.compile("\ue000(\\d+)\ue001")


def template_spans(
    tokenizer: TokenizerWrapper, messages: Sequence[Mapping[str, Any]], ids: Sequence[int], **template: Any
) -> list[Span]:
    """The tokens of a chat that belong to no user's or assistant's content, and a short last question.

    ids: what the chat template makes of `messages` with the options `template`.
    Raises PromptError if the tokens cannot be found in the template's text.
    """
    asked = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    stays = np.ones(len(ids), np.bool_)
    for i, (first, end) in message_spans(tokenizer, messages, ids, SPEAKERS, **template).items():
        if i != asked or end - first > QUESTION:
            stays[first:end] = False
    return runs(stays)


def message_spans(
    tokenizer: TokenizerWrapper,
    messages: Sequence[Mapping[str, Any]],
    ids: Sequence[int],
    roles: Sequence[str],
    **template: Any,
) -> dict[int, Span]:
    """The tokens of the contents of a chat's messages, by their number, as far as they are found.

    roles: whose messages.  ids, template, errors: as of `template_spans`.
    """
    options = {"add_generation_prompt": True, **template, "tokenize": False}
    text = tokenizer.apply_chat_template(list(messages), **options)
    told = [m["role"] in roles and isinstance(m.get("content"), str) and m["content"] != "" for m in messages]
    marked = [{**m, "content": f"\ue000{i}\ue001"} if told[i] else m for i, m in enumerate(messages)]
    found = content_spans(text, tokenizer.apply_chat_template(marked, **options), [m.get("content") for m in messages])
    starts, ends = token_offsets(tokenizer, text, ids)
    spans = {}
    for i, (first, end) in found.items():
        inside = np.flatnonzero((starts >= first) & (ends <= end))
        if len(inside):
            spans[i] = int(inside[0]), int(inside[-1]) + 1
    return spans


def content_spans(text: str, marked: str, contents: Sequence[Any]) -> dict[int, Span]:
    """Where contents stand in a template's text, by message.

    marked: the same text with a mark (its number) in place of each content.  A content that the template has changed
    is what stands between its neighbours; where even those are not found the search ends.
    """
    pieces, place, found = _MARK.split(marked), 0, {}
    for before, number, behind in zip(pieces[::2], pieces[1::2], pieces[2::2], strict=False):
        if not text.startswith(before, place):
            break
        place += len(before)
        content = contents[int(number)]
        for said in (content, content.strip(), content.lstrip(), content.rstrip()):
            if text.startswith(said + behind, place):
                end = place + len(said)
                break
        else:
            end = text.find(behind, place) if behind else -1
        if end < 0:
            break
        found[int(number)] = place, end
        place = end
    return found


def text_spans(
    tokenizer: TokenizerWrapper, ids: Sequence[int], wanted: Sequence[str], *, must_occur: bool = True
) -> list[Span]:
    """The tokens of every occurrence of these texts.  Raises PromptError for one that must occur and does not."""
    text, spans = token_spans(fast_tokenizer(tokenizer), ids)
    starts, ends = spans[:, 0], spans[:, 1]
    kept = np.zeros(len(ids), np.bool_)
    for piece in wanted:
        places = [m.start() for m in re.finditer(re.escape(piece), text)] if piece else []
        if not places and must_occur:
            raise PromptError(f"the text to protect does not occur in the prompt: {piece[:60]!r}")
        for first in places:
            kept |= (starts < first + len(piece)) & (ends > first)
    return runs(kept)


def token_offsets(
    tokenizer: TokenizerWrapper, text: str, ids: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last + 1 character of every token of `text`, each (S,).  Raises PromptError if they cannot be told."""
    own = fast_tokenizer(tokenizer)
    encoded = own.encode(text, add_special_tokens=False)
    said, spans = (text, np.array(encoded.offsets)) if encoded.ids == list(ids) else token_spans(own, ids)
    if said == text:
        return spans.reshape(-1, 2)[:, 0], spans.reshape(-1, 2)[:, 1]
    raise PromptError(
        "the prompt's tokens cannot be found in its text, so protected text cannot be told from the rest: give spans "
        "of tokens (protect=[(first, end)]) or turn the compression off"
    )


def runs(mask: NDArray[np.bool_]) -> list[Span]:
    """The spans where `mask` (S,) is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
