"""Where the messages of a conversation begin in its tokens, and where its chunks end.

Caches that carry states cannot be cut, they can only go back to where they were marked (generation/places.py).  So
chunks end where conversations are likely to part: before a message begins.  Two prompts that share a system prompt part
there, and the next turn of a conversation departs where the last answer was to begin, because templates write an
earlier answer otherwise than they ask for a new one: without its reasoning.

Where a chunk ends depends on the tokens before it alone.  A prompt that goes on from a mark is therefore processed in
the very chunks in which it would have been from its first token, and every number comes out the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.pair import Pair

NEAREST = 32
"""Tokens between two ends of chunks before messages, at least: a forward of so many costs little more than of one."""

Openings = Sequence[tuple[int, ...]]
"""Token sequences with which messages begin."""


@dataclass(frozen=True)
class ChunkEnds:
    """Tokens of a prompt, ascending: all of its chunks' ends but the last, and those of them before a message."""

    all: Sequence[int]
    turns: Sequence[int]


def chunk_ends(ids: Sequence[int], openings: Openings, step_size: int) -> ChunkEnds:
    """Where the chunks of a prompt end: before messages, and otherwise after `step_size` tokens."""
    ends: list[int] = []
    turns: list[int] = []
    cut = turn = 0
    for place in [*_places(ids, openings), len(ids)]:
        while place - cut > step_size:
            cut += step_size
            ends.append(cut)
        if place < len(ids) and place - turn >= NEAREST:
            cut = turn = place
            ends.append(place)
            turns.append(place)
    return ChunkEnds(ends, turns)


def _places(ids: Sequence[int], openings: Openings) -> list[int]:
    """Where an opening begins in a prompt, ascending."""
    by_first: dict[int, list[tuple[int, ...]]] = {}
    for opening in openings:
        by_first.setdefault(opening[0], []).append(opening)
    places = []
    for place, token in enumerate(ids):
        if any(tuple(ids[place : place + len(opening)]) == opening for opening in by_first.get(token, ())):
            places.append(place)
    return places


def openings_of(pair: Pair) -> Openings:
    """With what the pair's chat template begins messages; found once for a template."""
    template = str(pair.tokenizer.chat_template) if pair.tokenizer.has_chat_template else ""
    if template not in pair.openings:
        pair.openings[template] = message_openings(pair.tokenizer)
    return pair.openings[template]


def message_openings(tokenizer: TokenizerWrapper) -> Openings:
    """With what the chat template begins messages: special tokens before an answer and before a user's message.

    Found by rendering conversations that differ in one message, earlier answers with and without reasoning.  Empty
    where there is no template, or none of these can be told from text.
    """
    found = [_answers_opening(tokenizer), _users_opening(tokenizer)]
    return tuple(dict.fromkeys(opening for opening in found if opening))


def _answers_opening(tokenizer: TokenizerWrapper) -> tuple[int, ...]:
    """What a prompt for an answer and an earlier answer both begin with: one token, where no text has it."""
    without = _rendered(tokenizer, [_USER], add_generation_prompt=False)
    asking = _rendered(tokenizer, [_USER], add_generation_prompt=True)
    if not without or asking[: len(without)] != without:
        return ()
    shared = len(asking)
    for answer in ({"content": "b"}, {"content": "b", "reasoning_content": "c"}):
        later = _rendered(tokenizer, [_USER, {"role": "assistant", **answer}, _USER], add_generation_prompt=False)
        shared = min(shared, shared_beginning(asking, later))
    opening = tuple(asking[len(without) : shared])
    return opening[:1] if opening and opening[0] in _special(tokenizer) else opening


def _users_opening(tokenizer: TokenizerWrapper) -> tuple[int, ...]:
    """The last special token before what a user says, behind a system prompt where the template takes one."""
    for system in ([{"role": "system", "content": "s"}], []):
        first = _rendered(tokenizer, [*system, _USER], add_generation_prompt=True)
        second = _rendered(tokenizer, [*system, {"role": "user", "content": "b"}], add_generation_prompt=True)
        special = _special(tokenizer)
        before = [token for token in first[: shared_beginning(first, second)] if token in special]
        if before:
            return (before[-1],)
    return ()


_USER: Mapping[str, Any] = {"role": "user", "content": "a"}


def _rendered(tokenizer: TokenizerWrapper, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
    """A conversation's tokens; none where the template does not take it."""
    if not tokenizer.has_chat_template:
        return []
    try:
        return list(tokenizer.apply_chat_template([dict(message) for message in messages], **options))
    except Exception:  # templates are programs that raise what they like
        return []


def _special(tokenizer: TokenizerWrapper) -> set[int]:
    """Tokens that no text is ever split into."""
    added = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else {}
    return {*getattr(tokenizer, "all_special_ids", ()), *added.values()}


def shared_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two sequences share."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)
