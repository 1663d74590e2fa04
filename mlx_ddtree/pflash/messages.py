"""PFlash message by message, so that a conversation that goes on still begins alike (approximate, off by default).

A prompt that is compressed as a whole keeps what matters for its end, which is another end in every turn: nothing of it
can be reused.  Here a message that has aged out is compressed once, by itself, and is from then on what is left of it.
So the beginning of the next prompt is that of this one, and prompt caches hold what they held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_ddtree.decoding.prefill import Progress
from mlx_ddtree.errors import PromptError
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.compress import CompressionReport, PrefillCompression, selection_of
from mlx_ddtree.pflash.protect import SPEAKERS, Span, message_spans, runs

COMPRESSED = (*SPEAKERS, "tool")
"""Whose messages are compressed.  Results of tools are most of what agents send."""
LEAST_MESSAGE = 256
"""Tokens of the smallest message that is compressed."""
STEPS = 4
"""Messages age out in steps of one part in so many of the threshold, up to two of these steps behind the end."""


def aged_spans(
    tokenizer: TokenizerWrapper,
    messages: Sequence[Mapping[str, Any]],
    ids: Sequence[int],
    threshold: int,
    **template: Any,
) -> list[Span]:
    """The contents of a conversation that have aged out, as spans of its tokens; none where these cannot be told.

    A conversation of up to `threshold` tokens has none.  In a longer one it is those that end before a bound which
    moves in steps, and stays at least half a threshold behind the end: whatever is said next, it never moves back, and
    when it does not move, nothing that was read changes.
    """
    if len(ids) <= threshold:
        return []
    step = max(threshold // STEPS, 1)
    bound = (len(ids) - threshold // 2) // step * step
    try:
        found = message_spans(tokenizer, messages, ids, COMPRESSED, **template)
    except PromptError:
        return []
    return [span for _, span in sorted(found.items()) if span[1] <= bound and span[1] - span[0] >= LEAST_MESSAGE]


def without_aged(
    pair: Pair,
    ids: Sequence[int],
    aged: Sequence[Span],
    options: PrefillCompression,
    progress: Progress | None = None,
) -> tuple[list[int], CompressionReport | None]:
    """A conversation's tokens without what its aged messages lose, and what that is; None where they lose nothing.

    aged: spans of `ids`, ascending.
    progress: hears, while a scorer reads, that no token is processed yet; it may raise to give up.
    """
    started = perf_counter()
    stays = np.ones(len(ids), np.bool_)
    for first, end in aged:
        try:
            chosen = selection_of(pair, ids[first:end], options, (), progress).positions
        except PromptError:  # too short to choose from at this ratio
            continue
        stays[first:end] = False
        stays[first + chosen] = True
    if stays.all():
        return list(ids), None
    kept = [token for token, stay in zip(ids, stays, strict=True) if stay]
    report = CompressionReport(len(ids), len(kept), runs(stays), len(kept), positions="compact", messages=len(aged))
    report.scorer = options.scorer_name
    report.seconds["score"] = perf_counter() - started
    return kept, report
