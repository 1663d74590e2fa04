"""Prefill: the prompt goes into the caches in chunks, its last token becomes the root."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.decoding.context import Coverage
from mlx_ddtree.decoding.state import DecodeState

Progress = Callable[[int, int], None]
Step = Callable[[], int]
"""How many tokens the next chunk has at most."""
MAY_WAIT = 8192
"""Tokens of a prompt whose features may wait until the first token is out, however long the prompt: about a quarter of
what the caches of so many take in the models that drafters were published for."""


@dataclass(frozen=True)
class Kept:
    """What of a prompt is processed (pflash/): places (K,) int32 in it, ascending, the last token's among them;
    at their own positions, or, if compact, at consecutive ones."""

    places: NDArray[np.int32]
    compact: bool = False


def prefill(
    state: DecodeState,
    prompt: Sequence[int],
    step_size: int,
    progress: Progress | None = None,
    *,
    kept: Kept | None = None,
    then: Callable[[], None] | None = None,
    through: Sequence[Any] | None = None,
    drafter_later: bool = False,
    seconds: float | None = None,
) -> None:
    """Process all of `prompt` but its last token; or what is `kept` of it.

    Like mlx-lm, the last token is left for the first round, which processes it alone: one
    forward over the whole prompt rounds differently and can change a greedy answer.  Features
    go into the drafter's cache chunk by chunk, so their memory is bounded.

    progress: called with (tokens processed or dropped, tokens in all) before, between and after chunks.
    then: called when the caches hold the prompt, before `progress` hears of it.
    through: views of the target's caches, in whose place the target gets them.
    drafter_later: whether features of at most MAY_WAIT tokens wait in the state, because the first token needs no
        drafter; `read_by_drafter` has them read.  Not of a prompt of which something is dropped.
    seconds: that a chunk may take, as far as that is known: then there are fewer than `step_size` tokens in one.
    """
    report = progress or (lambda done, total: None)

    def step() -> int:
        return state.pair.chunks.size(state.length, step_size, seconds)

    if kept is None:
        chunks = _dense(state, prompt, step, through, MAY_WAIT if drafter_later else 0)
    else:
        chunks = _sparse(state, prompt, step, kept, through)
    report(0, len(prompt))
    for done in chunks:
        if then is not None and done == len(prompt) - 1:
            then()
        report(done, len(prompt))
        mx.clear_cache()
    state.root = prompt[-1]
    state.token_ids.append(prompt[-1])
    state.mark_exact()


def read_by_drafter(state: DecodeState, *, wait: bool = False) -> None:
    """Send what waits of a prompt off to the drafter's caches; wait: until they hold it.

    A first draft that had to wait for it would look slow to a planner that measures drafts.
    """
    with state.all_or_nothing():
        state.extend_drafter()
        evaluate = mx.eval if wait else mx.async_eval
        evaluate([c.state for c in state.caches.drafter])


def _dense(
    state: DecodeState, prompt: Sequence[int], step: Step, through: Sequence[Any] | None, may_wait: int
) -> Iterator[int]:
    """Chunk by chunk; how many tokens are processed."""
    before = len(state.token_ids)
    ends = [end - before for end in state.caches.chunk_ends]
    start = 0
    for stop in chunk_stops(len(prompt) - 1, step, ends):
        with state.all_or_nothing():
            _process(state, prompt[start:stop], through, may_wait=may_wait)
            state.token_ids.extend(prompt[start:stop])
        yield stop
        start = stop


def chunk_stops(tokens: int, step: Step, ends: Iterable[int]) -> Iterator[int]:
    """Where the chunks of so many tokens end: at `ends` among them, ascending, and after `step()` tokens at most.

    The last one is `tokens`; without tokens there are no chunks.
    """
    done = 0
    for end in (*(end for end in ends if 0 < end < tokens), tokens):
        while done < end:
            done = min(done + step(), end)
            yield done


def _sparse(
    state: DecodeState, prompt: Sequence[int], step: Step, kept: Kept, through: Sequence[Any] | None
) -> Iterator[int]:
    """Kept tokens, chunk by chunk; how many tokens of the prompt are dealt with."""
    last, rows = len(prompt) - 1, len(kept.places) - 1
    before, length, source = state.coverage, state.length, state.source
    first, drafted_first = state.position, state.drafted_length + before.drafter_gap
    head = before.head if before.source else length + int((kept.places == np.arange(rows + 1)).sum())
    dealt_with = start = 0
    for stop in chunk_stops(rows, step, ()) if rows else [0] * (last > 0):
        places = kept.places[start:stop]
        done = last if stop == rows else int(places[-1]) + 1
        with state.all_or_nothing():
            at = None if kept.compact else (first + places, drafted_first + places)
            if stop > start:
                _process(state, [prompt[i] for i in places], through, at)
            drafted = state.drafted_length
            state.coverage = Coverage(
                gap=before.gap if kept.compact else first + done - state.length,
                drafter_gap=before.drafter_gap if kept.compact or not drafted else drafted_first + done - drafted,
                source=source + done,
                rows=state.length,
                drafter_rows=drafted,
                head=min(head, state.length),
            )
            state.token_ids.extend(prompt[dealt_with:done])
        dealt_with, start = done, stop
        yield done


def _process(
    state: DecodeState,
    tokens: Sequence[int],
    through: Sequence[Any] | None,
    at: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None,
    may_wait: int = 0,
) -> None:
    """Put tokens into both caches; at: their positions for the target and the drafter, if not consecutive.

    may_wait: tokens whose features may stay in the state, all of them evaluated.
    """
    started = perf_counter()
    target = state.pair.target
    caches = state.caches.target if through is None else through  # a chunk may have quantised them
    places, drafted = (state.coverage.gap, None) if at is None else (mx.array(p)[None] for p in at)
    _, features = target.forward(mx.array(list(tokens))[None], caches, places)
    state.append_features(features)
    if sum(piece.shape[1] for piece in state.features) > may_wait:
        state.extend_drafter(drafted)
    mx.eval([c.state for c in (*state.caches.target, *state.caches.drafter)], state.features)
    state.pair.chunks.took(state.length, len(tokens), perf_counter() - started)
    state.length += len(tokens)
    if state.quantization_due:
        state.quantize()
