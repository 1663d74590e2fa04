"""Whether a drafter's file was read rightly: other readings draft the target's own text, and a better one is used.

Two things in a drafter's file are easily one off, with no error but half of the acceptance: which row of a block
predicts the first token, and which layers are tapped (some files count the embedding as layer 0).  Drafts show it at
once: with the right reading they agree with the target's own text longest.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.budget import saved
from mlx_ddtree.decoding.draft import finish_draft, start_candidates
from mlx_ddtree.pair import Pair
from mlx_ddtree.target import TreeTarget

PROMPT = "The following is a short story about a lighthouse and its keeper.\n\n"
LENGTH = 64
"""Tokens of the target's own text."""
ANCHORS = 24
"""Places in it behind which every reading drafts."""
ROWS = 9
"""Rows of these drafts at most; whole blocks take longer and say no more."""
STARTS = (0, 1)
SHIFTS = (-1, 0, 1)
CLEARLY = 3.0
"""Standard errors by which another reading must be better to be used ..."""
MUCH = 1.1
"""... and times as many accepted tokens."""


class Reading(NamedTuple):
    """start: the row that predicts the first token.  shift: what is added to the tapped layers of the file."""

    start: int
    shift: int


class ReadingCheck(NamedTuple):
    """Accepted tokens a draft by reading, of `configured` and others; `used` is configured unless another is clearly
    better."""

    configured: Reading
    used: Reading
    accepted: dict[Reading, float]

    @property
    def line(self) -> str:
        """What was found, in words."""
        numbers = ", ".join(f"{name(reading)} {mean:.2f}" for reading, mean in self.accepted.items())
        if self.used == self.configured:
            return f"as its file says; accepted a draft: {numbers}"
        return f"{name(self.used)}, not as its file says ({name(self.configured)}); accepted a draft: {numbers}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        accepted = [[*reading, round(mean, 3)] for reading, mean in self.accepted.items()]
        return {"configured": list(self.configured), "used": list(self.used), "accepted": accepted}

    @classmethod
    def from_dict(cls, record: object) -> ReadingCheck:
        """What `as_dict` gave.  Raises LookupError, TypeError or ValueError otherwise."""
        fields = saved.table(record)
        accepted = {}
        for entry in saved.items(fields["accepted"]):
            *reading, mean = saved.items(entry)
            accepted[_reading(reading)] = saved.number(mean)
        return cls(_reading(fields["configured"]), _reading(fields["used"]), accepted)


def name(reading: Reading) -> str:
    """A reading in words."""
    return f"row {reading.start}, taps {reading.shift:+d}"


def _reading(values: object) -> Reading:
    start, shift = saved.items(values)
    reading = Reading(start, shift)
    if reading.start not in STARTS or reading.shift not in SHIFTS:
        raise ValueError(f"no reading: {str(values)[:40]}")
    return reading


def check_reading(pair: Pair) -> ReadingCheck | None:
    """Draft behind places of the target's own text by every reading; None where the target is not whole here."""
    target, drafter = pair.target, pair.drafter
    if drafter is None or not isinstance(target, TreeTarget) or pair.notes.get("ranks") or None in target.layers:
        return None
    configured = Reading(drafter.config.logits_start, 0)
    text, prompt = own_text(pair)
    places = np.unique(np.linspace(prompt, len(text) - 2, ANCHORS).astype(int)).tolist()
    counts: dict[Reading, NDArray[np.float64]] = {}
    for shift in sorted(SHIFTS, key=abs):
        taps = tuple(layer + shift for layer in target.taps)
        if min(taps) >= 0 and max(taps) < target.num_layers:
            features = _features(target, text, taps)
            accepted = np.array([_accepted(pair, text, place, features) for place in places], np.float64)
            counts |= {Reading(start, shift): accepted[:, i] for i, start in enumerate(STARTS)}
    accepted_means = {reading: float(count.mean()) for reading, count in counts.items()}
    return ReadingCheck(configured, best_reading(configured, counts), accepted_means)


def best_reading(configured: Reading, counts: dict[Reading, NDArray[np.float64]]) -> Reading:
    """The configured one, or another that accepts clearly more; counts: accepted tokens at the same places (n,).

    Readings that differ from the file's in one thing come first: one that differs in both must be better than they are.
    """

    def differences(reading: Reading) -> int:
        return (reading.start != configured.start) + (reading.shift != configured.shift)

    used = configured
    for other in sorted(counts, key=differences):
        if _clearly_better(counts[other], counts[used]):
            used = other
    return used


def _clearly_better(counts: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """By far more than the difference scatters over the places, and by a share that matters."""
    gain = counts - others
    error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
    return bool(gain.mean() > CLEARLY * error and counts.mean() > MUCH * others.mean())


def use_reading(pair: Pair, check: ReadingCheck | None) -> None:
    """From now on the pair drafts by the reading that was found best; says so where that is not the file's."""
    log = logging.getLogger(__name__)
    if check is None:
        return
    if check.used == check.configured:
        log.info("drafter read %s", check.line)
        return
    drafter = pair.drafter
    assert drafter is not None
    taps = tuple(layer + check.used.shift for layer in pair.target.taps)
    drafter.config = replace(drafter.config, logits_start=check.used.start, target_layer_ids=taps)
    pair.target.taps = taps
    log.warning("warning: the drafter is read by %s; please report it", check.line)


def own_text(pair: Pair) -> tuple[list[int], int]:
    """What the target says itself, greedily: (token ids, how many of them are the prompt)."""
    target = pair.target
    text = list(pair.tokenizer.encode(PROMPT))[: (target.max_context or LENGTH * 4) // 2] or [0]
    prompt = len(text)
    length = min(LENGTH, (target.max_context or LENGTH * 4) - prompt - 1)
    cache = target.make_cache()
    new = mx.array([text])
    for _ in range(length):
        hidden, _ = target.forward(new, cache)
        new = target.unembed(hidden[:, -1]).argmax(axis=-1)[None].astype(mx.int32)
        text.append(int(new[0, 0]))
    return text, prompt


def _features(target: TreeTarget, text: Sequence[int], taps: Sequence[int]) -> mx.array:
    """The outputs of these layers for the whole text, (1, n, taps * D)."""
    own = target.taps
    try:
        target.taps = tuple(taps)
        _, features = target.forward(mx.array([text]), target.make_cache())
    finally:
        target.taps = own
    assert features is not None
    mx.eval(features)
    return features


def _accepted(pair: Pair, text: Sequence[int], place: int, features: mx.array) -> list[int]:
    """Tokens of the text that a draft behind `place` names before its first mistake, for every start."""
    drafter = pair.drafter
    assert drafter is not None
    rows = min(ROWS, drafter.config.rows(drafter.config.block_size))
    block = mx.array([[text[place]] + [drafter.config.mask_token_id] * (rows - 1)])
    embedded = drafter.embed(block, pair.target.embed)
    hidden = drafter(embedded, features[:, :place], drafter.make_cache())[0]
    truth = np.array(text[place + 1 :])
    counts = []
    for start in STARTS:
        if rows == 1 and start == 1:
            counts.append(0)
            continue
        drafted = finish_draft(start_candidates(pair, block[0, 0], hidden[start : start + max(rows - 1, 1)], 1))
        length = min(len(truth), len(drafted.token_ids))
        agrees = drafted.token_ids[:length, 0] == truth[:length]
        counts.append(int(np.cumprod(agrees).sum()))
    return counts
