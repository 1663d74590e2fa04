"""Importance by words alone: where the prompt's last words stand in the rest of it (approximate).  No model is run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_ddtree.errors import OptionError
from mlx_ddtree.pflash.scoring import Progress, asking_end

K1 = 1.2
"""BM25's saturation: how much a token's second occurrence in a window adds."""


class LexicalScorer:
    """BM25 (Robertson & Zaragoza 2009) of the window around each token, for the query of the last tokens.

    query: tokens at the prompt's end.  window: tokens around each token; all are equally long, so b has no part.
    closing: what a template puts after the text that asks (scoring.closing_tokens).
    """

    def __init__(self, *, query: int = 64, window: int = 32, closing: Sequence[int] = ()) -> None:
        if query < 1 or window < 1:
            raise OptionError(f"query {query} and window {window} must be at least 1")
        self.query, self.window, self.closing = query, window, tuple(closing)

    def __call__(
        self, token_ids: Sequence[int], progress: Progress | None = None, *, tail_end: int | None = None
    ) -> NDArray[np.float32]:
        ids = np.asarray(token_ids, np.int64)
        end = asking_end(token_ids, self.closing, tail_end)
        places = np.arange(len(ids))
        first = np.maximum(places - self.window // 2, 0)
        last = np.minimum(places + (self.window + 1) // 2, len(ids))
        windows = -(-len(ids) // self.window)
        scores = np.zeros(len(ids))
        for token in np.unique(ids[max(0, end - self.query) : end]):
            found = ids == token
            sums = np.concatenate([[0], np.cumsum(found)])
            count = sums[last] - sums[first]
            holding = len(np.unique(np.flatnonzero(found) // self.window))
            scores += np.log1p((windows - holding + 0.5) / (holding + 0.5)) * count * (K1 + 1) / (count + K1)
        if progress is not None:
            progress(len(ids), len(ids))
        return scores.astype(np.float32)
