"""PFlash in front of decoding: a long prompt keeps what matters for its end (approximate, off by default).

A scorer reads the prompt, `select` chooses, and the target's prefill processes the chosen tokens alone.  What follows
is as exact as ever, given what the prompt has kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_ddtree.decoding.prefill import Kept, Progress
from mlx_ddtree.errors import OptionError, PromptError, UnsupportedModelError
from mlx_ddtree.pair import Pair
from mlx_ddtree.pflash.bridge import BridgedScorer, fast_tokenizer, token_spans, whole_words
from mlx_ddtree.pflash.modes import MESSAGES, MODES, POSITIONS, THRESHOLD
from mlx_ddtree.pflash.protect import Span, template_spans, text_spans
from mlx_ddtree.pflash.scorers import scorer_of
from mlx_ddtree.pflash.selection import Selection, select
from mlx_ddtree.target import PlainTarget

MOST_REMEMBERED = 32 << 20
"""Bytes of what is remembered of prompts and messages that were scored."""
CURVE = (10_000, 40_000, 100_000), (0.5, 0.2, 0.1)
"""Prompt tokens, and the share that is kept, where nobody asked for another: published for lucebox's PFlash."""


@dataclass(frozen=True)
class PrefillCompression:
    """How prompts are compressed.

    mode: 'auto' compresses prompts (what is new in them) of more than `threshold` tokens and processes them whole if
        too much is protected; 'always' compresses from `least` tokens on and refuses where that is impossible; 'off';
        'messages' compresses what has aged in conversations of more than `threshold` tokens, message by message
        (pflash/messages.py).
    keep_ratio: share of the tokens that is kept; None: 0.5 up to 10k tokens, 0.2 at 40k, 0.1 from 100k on.
    scorer: 'self' (the target's first layers), 'lexical' (no model), the folder or name of a small model, or any
        function from token ids to (S,) scores.
    positions: 'original' leaves kept tokens at their positions; 'compact' closes the gaps, so that a prompt may be
        longer than the model's context, and any architecture will do.
    chunk: tokens that stay or go together.
    least: prompts of fewer tokens stay whole in any mode; their ends alone would be most of what is kept.
    protect: what must stay: texts, wherever they occur in the prompt, or spans (first, last + 1) of its tokens.
        Of chat messages, all that is not a user's or assistant's content is protected without being named.
    aged: with 'messages', the spans of a conversation's tokens that have aged out.
    """

    mode: str = "auto"
    threshold: int = THRESHOLD
    keep_ratio: float | None = None
    scorer: Any = "self"
    positions: str = "original"
    chunk: int = 32
    protect: Sequence[str | Span] = ()
    least: int = 1024
    aged: Sequence[Span] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise OptionError(f"unknown prefill compression {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.positions not in POSITIONS:
            raise OptionError(f"unknown prefill positions {self.positions!r}; choose one of {', '.join(POSITIONS)}")
        if self.keep_ratio is not None and not 0 < self.keep_ratio <= 1:
            raise OptionError(f"keep ratio {self.keep_ratio} is not above 0 and at most 1")
        if self.threshold < 0:
            raise OptionError(f"prefill threshold {self.threshold} is negative")

    @property
    def scorer_name(self) -> str:
        """The scorer in words."""
        return self.scorer if isinstance(self.scorer, str) else type(self.scorer).__name__

    def ratio(self, length: int) -> float:
        """The share to keep of a prompt."""
        return float(np.interp(length, *CURVE)) if self.keep_ratio is None else self.keep_ratio

    def concerns(self, length: int) -> bool:
        """Whether a prompt of so many new tokens is to be compressed."""
        if self.mode in ("off", MESSAGES) or length < self.least or self.ratio(length) == 1:
            return False
        return self.mode == "always" or length > self.threshold

    def protecting(
        self, pair: Pair, prompt: Any, ids: Sequence[int], *, must_occur: bool = True, **template: Any
    ) -> PrefillCompression:
        """These options with `protect` as spans of `ids`, which `prompt` (chat messages, or anything else) became.

        must_occur: refuse texts that the prompt does not have.  Raises PromptError.
        """
        texts = [p for p in self.protect if isinstance(p, str)]
        spans = [p for p in self.protect if not isinstance(p, str)]
        if self.mode == "off" or not (texts or is_chat(prompt)):
            return self
        if is_chat(prompt):
            try:
                spans += template_spans(pair.tokenizer, prompt, ids, **template)
            except PromptError:
                if self.mode == "always":
                    raise
                spans.append((0, len(ids)))  # which is refused, and reported
        if texts:
            spans += text_spans(pair.tokenizer, ids, texts, must_occur=must_occur)
        return replace(self, protect=tuple(spans))

    def behind(self, tokens: int) -> PrefillCompression:
        """These options for the rest of a prompt whose first `tokens` tokens need not be processed."""
        texts = [p for p in self.protect if isinstance(p, str)]
        spans = [
            (max(p[0] - tokens, 0), p[1] - tokens) for p in self.protect if not isinstance(p, str) and p[1] > tokens
        ]
        return replace(self, protect=(*texts, *spans))


OFF = PrefillCompression("off")


def is_chat(prompt: Any) -> bool:
    """Whether these are messages for a chat template."""
    return not isinstance(prompt, str | mx.array) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


@dataclass
class CompressionReport:
    """What a prompt has lost before its answer began.

    prompt_tokens, kept_tokens: of what was new in the prompt.
    spans: runs of kept tokens (first, last + 1), counted in what was new.
    requested: tokens that the keep ratio allows; forced: kept tokens by the reason that took them.
    over: kept tokens above that and a chunk, which protected spans brought about.
    anchors_left_out: tokens around earlier mentions of the question's words that did not fit.
    refused: why nothing was dropped, though it was asked for.
    kv_rows: rows of the target's caches before and after they were filtered; None where they were not.
    messages: how many were compressed by themselves, of a conversation of `prompt_tokens`; None where it was no such.
    seconds: by stage: score, prefill, filter; first_token is the whole time until the first token.
    """

    prompt_tokens: int
    kept_tokens: int
    spans: list[Span]
    requested: int
    forced: dict[str, int] = field(default_factory=dict)
    over: int = 0
    anchors_left_out: int = 0
    scorer: str | None = None
    positions: str = "original"
    refused: str | None = None
    kv_rows: tuple[int, int] | None = None
    kv_refused: str | None = None
    messages: int | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def whole(cls, tokens: int, positions: str = "original") -> CompressionReport:
        """Nothing is lost yet."""
        return cls(tokens, tokens, [(0, tokens)], tokens, positions=positions)

    @property
    def ratio(self) -> float:
        """Kept tokens / tokens."""
        return self.kept_tokens / max(self.prompt_tokens, 1)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ratio": round(self.ratio, 4), **vars(self)}

    def lines(self) -> str:
        """For --verbose."""
        lines = []
        if self.refused is not None:
            lines.append(f"Prompt: not compressed: {self.refused}")
        elif self.messages is not None:
            lines.append(
                f"Conversation (approximate): {self.kept_tokens} of {self.prompt_tokens} tokens kept "
                f"({self.ratio:.1%}), {self.messages} aged messages shortened, chosen by {self.scorer}"
            )
        elif self.scorer is not None:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.forced.items() if count)
            lines.append(
                f"Prompt (approximate): {self.kept_tokens} of {self.prompt_tokens} tokens kept ({self.ratio:.1%}) in "
                f"{len(self.spans)} spans at {self.positions} positions, chosen by {self.scorer}: {reasons}"
                + (f"; {self.over} above the cap because so much is protected" if self.over else "")
            )
        if self.kv_refused is not None:
            lines.append(f"Cache: not filtered: {self.kv_refused}")
        elif self.kv_rows is not None:
            lines.append(f"Cache (approximate): {self.kv_rows[1]} of {self.kv_rows[0]} rows kept of every head")
        seconds = ", ".join(f"{stage.replace('_', ' ')} {s:.3f}" for stage, s in self.seconds.items())
        return "\n".join([*lines, f"Seconds: {seconds}"])


def compress(
    pair: Pair, ids: Sequence[int], options: PrefillCompression, start: int = 0, progress: Progress | None = None
) -> tuple[Kept | None, CompressionReport]:
    """What to keep of a prompt that `options` concern, whose `protect` are spans; None is all of it.

    start: its first position.

    Raises PromptError (too much is protected, in mode 'always'; too long for the model at original positions),
    UnsupportedModelError (positions of this target cannot be set).
    """
    compact = options.positions == "compact"
    if not compact and isinstance(pair.target, PlainTarget):
        raise UnsupportedModelError(
            f"the positions of model type {pair.target.model_type!r} cannot be set: use compact positions "
            "(--prefill-positions compact)"
        )
    limit = pair.target.max_context
    if not compact and limit is not None and start + len(ids) >= limit:
        raise PromptError(
            f"the prompt needs {start + len(ids)} positions, but this model's context ends at {limit}: use compact "
            "positions (--prefill-positions compact)"
        )
    report = CompressionReport.whole(len(ids), options.positions)
    started = perf_counter()
    try:
        selection = selection_of(pair, ids, options, options.protect, progress)
    except PromptError as error:
        if options.mode == "always":
            raise
        logging.getLogger(__name__).warning("the prompt is processed whole: %s", error)
        report.refused = str(error)
        selection = None
    report.seconds["score"] = perf_counter() - started
    if selection is None or len(selection.positions) == len(ids):
        return None, report
    report.kept_tokens, report.spans = len(selection.positions), selection.spans
    report.requested, report.forced = selection.requested, selection.forced
    report.over, report.anchors_left_out = selection.over, selection.anchors_left_out
    report.scorer = options.scorer_name
    return Kept(selection.positions, compact), report


def selection_of(
    pair: Pair,
    ids: Sequence[int],
    options: PrefillCompression,
    protect: Sequence[str | Span],
    progress: Progress | None = None,
) -> Selection:
    """What these tokens keep, of which the spans `protect` stay; the same tokens are scored once.

    Raises PromptError.
    """
    spans = tuple(span for span in protect if not isinstance(span, str))
    ratio = options.ratio(len(ids))
    content = sha256(np.array(ids, np.int32).tobytes()).digest()
    key = content, options.scorer, ratio, options.chunk, spans
    known = pair.selections
    selection = known.pop(key, None)
    if selection is None:
        selection = _select(pair, ids, options, spans, progress)
    known[key] = selection
    while len(known) > 1 and sum(kept.positions.nbytes for kept in known.values()) > MOST_REMEMBERED:
        del known[next(iter(known))]
    return selection


def _select(
    pair: Pair, ids: Sequence[int], options: PrefillCompression, spans: Sequence[Span], progress: Progress | None
) -> Selection:
    last = len(ids) - 1, len(ids)  # the answer begins after it
    waiting = None if progress is None else lambda done, total: progress(0, len(ids))
    scorer = scorer_of(pair, options.scorer)
    selection = select(
        scorer(ids, waiting), ids, options.ratio(len(ids)), protected=[*spans, last], chunk=options.chunk
    )
    if isinstance(scorer, BridgedScorer):  # its chunks' edges lie anywhere in the words of another tokenizer
        selection = whole_words(selection, *token_spans(fast_tokenizer(pair.tokenizer), ids))
    return selection
