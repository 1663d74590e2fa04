"""Block-sparse causal attention for prompts so long that dense attention is the scorer's cost (approximate).

FlashPrefill's pattern (arXiv 2603.06199): queries and keys in blocks of 128; for each block of queries every block of
keys gets the softmax, over blocks, of mean query . mean key.  Kept are blocks with at least `alpha` of the best one's
probability, the first blocks, those just before the queries, and everything for the last queries.  The S x S matrix
is never made: every block of queries gathers the blocks of keys that it keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError


@dataclass
class BlockSparseAttention:
    """Causal attention that leaves out blocks of keys; counts what it kept over all its calls.

    alpha: 0 keeps everything (then it equals dense attention), 1 only each row's best block and the fixed ones.
    sink, window, last: first key blocks, key blocks up to the query's own, and last query blocks, that are kept.
    """

    alpha: float = 0.12
    block: int = 128
    sink: int = 2
    window: int = 4
    last: int = 2
    kept: int = field(default=0, init=False)
    causal: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.block < 1 or min(self.sink, self.last) < 0 or self.window < 1:
            raise OptionError(
                f"alpha {self.alpha} must be in 0..1, block {self.block} and window {self.window} at least 1, "
                f"sink {self.sink} and last {self.last} at least 0"
            )

    @property
    def kept_fraction(self) -> float:
        """Share of causal attention's (KV head, query block, key block) that is read; 1 before the first call."""
        return self.kept / self.causal if self.causal else 1.0

    def __call__(
        self, queries: mx.array, keys: mx.array, values: mx.array, scale: float, length: int | None = None
    ) -> mx.array:
        """queries (1, Hq, L, D), the last L positions of keys (1, H, P, D) and values (1, H, P, Dv) -> (1, Hq, L, Dv).

        length: tokens of the whole prompt, when these queries are a part of it; P - L must then be full blocks.
        Query heads of one KV head share the blocks that any of them keeps.  Waits for the device once.
        """
        heads, rows, places = keys.shape[1], queries.shape[2], keys.shape[2]
        first, odd = divmod(places - rows, self.block)
        if odd:
            raise OptionError(f"prompt parts of {self.block} * n tokens are needed; {places - rows} came before")
        queries = queries.reshape(heads, -1, rows, queries.shape[-1])
        kept = self._choose(
            np.array(self.block_scores(queries, keys, scale)), first, -(-(length or places) // self.block)
        )
        pad = -places % self.block
        keys, values = (_blocks(x[0], pad, self.block) for x in (keys, values))
        parts = []
        for i in range(kept.shape[1]):
            rows_of_block = queries[:, :, i * self.block : (i + 1) * self.block]
            parts.append(self._attend(rows_of_block, keys, values, kept[:, i], first + i, scale))
        return mx.concatenate(parts, axis=2).reshape(1, -1, rows, values.shape[-1])

    def block_scores(self, queries: mx.array, keys: mx.array, scale: float) -> mx.array:
        """(H, G, L, D) and (1, H, P, D) -> (H, G, query blocks, key blocks) fp32: softmax over the key blocks that a
        query block can see."""
        mean_queries = _means(queries.astype(mx.float32), self.block)
        mean_keys = _means(keys[0].astype(mx.float32), self.block)[:, None]
        logits = (mean_queries * scale) @ mean_keys.swapaxes(-1, -2)
        first = (keys.shape[2] - queries.shape[2]) // self.block
        count, total = logits.shape[-2:]
        seen = mx.arange(total)[None] <= first + mx.arange(count)[:, None]
        return mx.softmax(mx.where(seen, logits, -mx.inf), axis=-1)

    def _choose(self, scores: NDArray[np.float32], first: int, blocks: int) -> NDArray[np.bool_]:
        """(H, G, M, N) -> (H, M, N): the key blocks that each query block reads."""
        rows, columns = first + np.arange(scores.shape[2])[:, None], np.arange(scores.shape[3])[None]
        seen = columns <= rows
        always = (columns < self.sink) | (rows - columns < self.window) | (rows >= blocks - self.last)
        best = scores.max(axis=-1, keepdims=True)
        kept = seen & (always | (scores >= self.alpha * best).any(axis=1))
        self.kept += int(kept.sum())
        self.causal += int(seen.sum()) * len(kept)
        return kept

    def _attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, kept: NDArray[np.bool_], row: int, scale: float
    ) -> mx.array:
        """(H, G, l, D) of query block `row` over the blocks `kept` (H, N) of (H, N, block, D) -> (H, G, l, Dv).

        Heads that keep fewer blocks than another are filled up with blocks that the mask hides.
        """
        heads, most = len(kept), int(kept.sum(axis=1).max())
        order = np.argsort(~kept, axis=1, kind="stable")[:, :most]  # kept ones first, in their order
        places = order[:, :, None] * self.block + np.arange(self.block)
        reading = np.take_along_axis(kept, order, axis=1)[:, :, None]
        wanted = row * self.block + np.arange(queries.shape[2])
        mask = (reading & (places <= wanted[:, None, None, None])).swapaxes(0, 1).reshape(heads, 1, len(wanted), -1)
        index = mx.array(order.astype(np.int32))[:, :, None, None]
        keys, values = (mx.take_along_axis(x, index, axis=1).reshape(heads, 1, -1, x.shape[-1]) for x in (keys, values))
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mx.array(mask))


def _blocks(x: mx.array, pad: int, block: int) -> mx.array:
    """(H, P, D), `pad` rows short of whole blocks -> (H, N, block, D)."""
    return mx.pad(x, [(0, 0), (0, pad), (0, 0)]).reshape(x.shape[0], -1, block, x.shape[-1])


def _means(x: mx.array, block: int) -> mx.array:
    """(..., P, D) -> (..., N, D): the mean of each block, the last one of what it has."""
    whole = x.shape[-2] // block * block
    parts = [mx.unflatten(x[..., :whole, :], -2, (-1, block)).mean(axis=-2)] if whole else []
    if whole < x.shape[-2]:
        parts.append(x[..., whole:, :].mean(axis=-2, keepdims=True))
    return mx.concatenate(parts, axis=-2)
