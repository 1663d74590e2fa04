"""Commit: the accepted path becomes part of the context, the rest of the tree is gone."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlx_ddtree.decoding.state import DecodeState
from mlx_ddtree.decoding.verify import Verification


def commit(state: DecodeState, path: Sequence[int], verification: Verification, token_ids: Sequence[int]) -> None:
    """Keep what the round emitted.

    path: node indices, root first, of the accepted path.
    token_ids: the emitted tokens.  Normally the accepted nodes' tokens and the new bonus token.
        Fewer when the text ends inside the path: then the path is cut after the last emitted
        token, which is in the cache, and no root is left.
    """
    # 1. The rows of the path stay in the target's caches.
    kept = path[: len(token_ids) + 1]
    as_plainly = len(verification.chosen) == 1 and state.exact == state.length
    verification.pending.commit(kept)
    state.length += len(kept)
    if as_plainly:
        state.mark_exact()
    # 2. Their features wait for the drafter.
    if state.drafter_cache and verification.features is not None:
        state.append_features(mx.take(verification.features, mx.array(list(kept)), axis=1))
    # 3. The last choice is the new root.
    state.root = token_ids[-1] if len(token_ids) == len(path) else None
    state.token_ids.extend(token_ids)
