"""Whether a kernel's results are its reference's, to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx

from mlx_ddtree.kernels.head import HeadTopK

TOLERANCE = {mx.float32: 1e-4, mx.float16: 1e-2, mx.bfloat16: 6e-2}
"""Largest difference against the largest value, by the type of the inputs: a few units of rounding."""


def difference(want: Any, got: Any) -> mx.array:
    """The largest difference of any array from its reference's, relative to the reference's largest value; lazy."""
    return mx.stack(list(_differences(want, got))).max()


def arrays(x: Any) -> list[mx.array]:
    """All arrays of nested sequences."""
    return [x] if isinstance(x, mx.array) else [leaf for part in x for leaf in arrays(part)]


def _differences(want: Any, got: Any) -> Iterator[mx.array]:
    """Differences of the LM head's tokens: 1 where the best one is another although no other comes close."""
    if isinstance(want, HeadTopK):
        if want.logits.shape[1] > 1:
            sure = want.logits[:, 0] - want.logits[:, 1] > 0.05 * mx.abs(want.logits).max()
            yield (sure & (want.token_ids[:, 0] != got.token_ids[:, 0])).astype(mx.float32).max()
        want, got = want[1:], got[1:]
    for a, b in zip(arrays(want), arrays(got), strict=True):
        a, b = a.astype(mx.float32), b.astype(mx.float32)  # noqa: PLW2901
        yield mx.abs(a - b).max() / mx.maximum(mx.abs(a).max(), 1e-6)
