"""How long kernels and their references take by themselves, on the calls of a verification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from mlx_ddtree.kernels.agreement import arrays
from mlx_ddtree.tuning.agree import Call
from mlx_ddtree.tuning.stopwatch import fastest

LONG_CONTEXT = 16384
"""Tokens of context behind which attention is timed too: what gains little behind 1,000 can gain much there."""
TOGETHER = 4
"""Calls that are evaluated at once, so that waiting for them weighs less."""
PATIENCE = 0.01
"""Seconds of a side that end its timing, once there are enough."""


def seconds_of(calls: Sequence[tuple[Call, int]]) -> dict[str, float]:
    """Seconds of all these calls, each as often as said, by 'kernel' and by 'MLX'."""
    seconds = {"kernel": 0.0, "MLX": 0.0}
    for call, times in calls:
        sides = {"kernel": _several(call.kernel, call), "MLX": _several(call.reference, call)}
        for side, taken in fastest(sides, PATIENCE).items():
            seconds[side] += times * taken / TOGETHER
    return seconds


def longer(call: Call, limit: int | None) -> Call | None:
    """A call's attention behind LONG_CONTEXT tokens, or as many as the model takes; None where that is no longer.

    Windows and quantised caches are left as they are: the first never grow, the second are not what was called.
    """
    queries, keys, values = call.args
    rows = queries.shape[2]
    context = min(LONG_CONTEXT, (limit or LONG_CONTEXT) - rows)
    if call.how.get("window") is not None or not isinstance(keys, mx.array) or context <= 2 * call.how["context"]:
        return None
    repeated = [_repeat(x, context + rows) for x in (keys, values)]
    return replace(call, args=(queries, *repeated), how=call.how | {"context": context})


def _repeat(x: mx.array, length: int) -> mx.array:
    """Keys or values (1, H, n, D), one after the other until there are `length` of them."""
    many = mx.concatenate([x] * -(-length // x.shape[2]), axis=2)[:, :, :length]
    whole = mx.contiguous(many)
    mx.eval(whole)
    return whole


def _several(compute: Callable[..., Any], call: Call) -> Callable[[], None]:
    def run() -> None:
        mx.eval([arrays(compute(*call.args, **call.how)) for _ in range(TOGETHER)])

    return run
