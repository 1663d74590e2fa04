"""Parity with plain decoding at temperature 0, though forwards of several rows round differently.

Kernels for one row and for many sum in another order, so their logits differ in the last bits: by
about 1e-5 in fp32, by several hundredths in 16 bits.  Where the two best logits are closer than
that, one row and many may disagree about the best.

'rows'   decides such a token by a row of its own.  What is left is the cache's own rounding: keys and values
         of accepted nodes were computed several at a time.
'exact'  also makes the cache anew, a row at a time, where even that could decide.  Then the tokens are those
         of plain decoding, because they come from the same computation wherever rounding could matter.
'off'    trusts every row.

What could matter is a bound that is measured on the loaded pair (tuning/rounding.py).
"""

from __future__ import annotations

import mlx.core as mx

from mlx_ddtree.decoding.state import DecodeState


def remake_cache(state: DecodeState) -> None:
    """Compute the rows behind `state.exact` again, one at a time, as plain decoding would have."""
    target, cache = state.pair.target, state.caches.target
    first = len(state.token_ids) - 1 - (state.length - state.exact)  # the root, the last token, is not cached
    target.rewind(cache, state.exact_mark)
    for token in state.token_ids[first:-1]:
        hidden, _ = target.forward(mx.array([[token]]), cache, state.coverage.gap)
        mx.async_eval(hidden, [c.state for c in cache])
    state.mark_exact()
