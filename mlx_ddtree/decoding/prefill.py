"""Prefill: the prompt goes into the caches in chunks, its last token becomes the root."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from mlx_ddtree.decoding.state import DecodeState

Progress = Callable[[int, int], None]


def prefill(state: DecodeState, prompt: Sequence[int], step_size: int, progress: Progress | None = None) -> None:
    """Process all of `prompt` but its last token.

    Like mlx-lm, the last token is left for the first round, which processes it alone: one
    forward over the whole prompt rounds differently and can change a greedy answer.  Features
    go into the drafter's cache chunk by chunk, so their memory is bounded by `step_size` rows.

    progress: called with (tokens processed, tokens in all) before, between and after chunks.
    """
    report = progress or (lambda done, total: None)
    target = state.pair.target
    report(0, len(prompt))
    for start in range(0, len(prompt) - 1, step_size):
        chunk = prompt[start : min(start + step_size, len(prompt) - 1)]
        with state.all_or_nothing():
            _, features = target.forward(mx.array(list(chunk))[None], state.target_cache)
            state.append_features(features)
            state.extend_drafter()
            mx.eval([c.state for c in (*state.target_cache, *state.drafter_cache)])
            state.length += len(chunk)
            state.token_ids = list(prompt[: start + len(chunk)])
        report(start + len(chunk), len(prompt))
        mx.clear_cache()
    state.root = prompt[-1]
    state.mark_exact()
    state.token_ids = list(prompt)
