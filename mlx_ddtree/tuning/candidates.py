"""Whether a draft's candidates come from a kernel: nothing but them reads the drafter's logits."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import numpy as np

from mlx_ddtree.kernels.guard import warn_of_failure
from mlx_ddtree.kernels.metal import Launch
from mlx_ddtree.kernels.registry import DRAFT, TOP_K
from mlx_ddtree.kernels.topk import finish_top_k, start_top_k, topk_logprobs
from mlx_ddtree.pair import Pair
from mlx_ddtree.tuning.finding import FASTER, WRONG, Finding
from mlx_ddtree.tuning.stopwatch import fastest
from mlx_ddtree.tuning.timings import Timings


def choose_top_k(pair: Pair, mode: str, launch: Launch, timings: Timings | None = None) -> tuple[list[str], Finding]:
    """The kernel's name if it agrees and, in mode 'auto', is faster; and what was found.  Raises OutOfTime."""
    known = timings or Timings(None)
    finding = Finding(TOP_K)
    if f"error of {TOP_K}" not in known.seconds:
        known.need_time()
        try:
            _examine_top_k(pair, mode, launch, known)
        except Exception as error:  # whatever the compiler or the driver raises
            warn_of_failure(TOP_K, error)
            known.note(f"error of {TOP_K}", WRONG)
    difference = known.seconds[f"error of {TOP_K}"]
    finding.agrees = difference < WRONG
    finding.error = difference if finding.agrees else None
    if mode == "on" or not finding.agrees:
        return [TOP_K] if finding.agrees else [], finding
    ours, mlx = (known.seconds[f"{TOP_K} by {side}"] for side in ("kernel", "MLX"))
    finding.speedup[DRAFT] = mlx / ours
    return [TOP_K] if ours <= FASTER * mlx else [], finding


def _examine_top_k(pair: Pair, mode: str, launch: Launch, known: Timings) -> None:
    target = pair.target
    hidden, _ = target.forward(mx.arange(15)[None], target.make_cache())
    logits = target.unembed(hidden[0])
    k = min(16, logits.shape[-1])
    kernel = partial(topk_logprobs, launch=launch)
    want_ids, want = finish_top_k(mx.array(start_top_k(logits, k)), k)
    ids, got = finish_top_k(mx.array(kernel(logits, k)), k)
    error = float(np.abs(want - got).max())
    agrees = bool((want_ids == ids).all() and error < 1e-3)
    if agrees and mode == "auto":
        sides = {"kernel": lambda: mx.eval(kernel(logits, k)), "MLX": lambda: mx.eval(start_top_k(logits, k))}
        for side, seconds in fastest(sides).items():
            known.note(f"{TOP_K} by {side}", min(seconds, WRONG))
    known.note(f"error of {TOP_K}", error if agrees else WRONG)
