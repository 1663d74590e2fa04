"""What survives from one round to the next, and the guarantee that it is never half-changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from mlx_ddtree.decoding.context import WHOLE, Held
from mlx_ddtree.kernels.rope import Positions
from mlx_ddtree.pair import Pair
from mlx_ddtree.target.views import Mark


@dataclass
class DecodeState:
    """One sequence being decoded.

    length: tokens in the target's cache; held: what they are of those that it stands for, and their positions.
    root: the bonus token: decided, emitted, not in the cache; None once everything emitted is.
    features: pieces (1, m, taps * D), in order, of the committed tokens that the drafter has not seen;
        they wait here because extending the drafter's cache by many tokens costs as much as by one.
    exact: tokens in the target's cache that were computed as plain decoding would: the prompt, and what
        followed it a row at a time; exact_mark: where the cache stood then.
    near_tie: whether what follows the root is to be decided by a row of its own.
    token_ids: prompt and output of this call, root included; what logits processors see.
    reads_at_most: context tokens that a layer of the target reads (icecache); None: all.
    """

    pair: Pair
    target_cache: list[Any]
    drafter_cache: list[Any]
    length: int
    root: int | None
    features: list[mx.array] = field(default_factory=list)
    exact: int = 0
    exact_mark: Mark = field(default_factory=list)
    near_tie: bool = False
    token_ids: list[int] = field(default_factory=list)
    held: Held = WHOLE
    reads_at_most: int | None = None

    @property
    def position(self) -> int:
        """Of the token that comes next into the target's cache."""
        return self.length + self.held.gap

    @property
    def source(self) -> int:
        """Tokens that the target's cache stands for."""
        return self.held.source + self.length - self.held.rows

    @property
    def context(self) -> int:
        """Context tokens that a round's cost depends on."""
        return self.length if self.reads_at_most is None else min(self.length, self.reads_at_most)

    def take_features(self) -> mx.array:
        """The features (1, m, taps * D), m >= 0, that the drafter's cache is about to receive."""
        pieces, self.features = self.features, []
        if pieces:
            return mx.concatenate(pieces, axis=1)
        drafter = self.pair.drafter
        assert drafter is not None
        return drafter.no_features()

    @contextmanager
    def all_or_nothing(self) -> Iterator[Mark]:
        """Undo every change of the block if it raises, Ctrl-C included.  Gives the mark of the target's cache."""
        drafted, features, root, tokens = self.drafted_length, list(self.features), self.root, len(self.token_ids)
        length, held, marked = self.length, self.held, self.pair.target.mark(self.target_cache)
        try:
            yield marked
        except BaseException:
            for layer_cache in self.drafter_cache:
                layer_cache.offset = drafted
            self.pair.target.rewind(self.target_cache, marked)
            self.features, self.root, self.length, self.held = features, root, length, held
            del self.token_ids[tokens:]
            raise

    def mark_exact(self, marked: Mark | None = None) -> None:
        """All `length` tokens were computed as plain decoding would; marked: the cache then, if not now."""
        self.exact = self.length
        self.exact_mark = self.pair.target.mark(self.target_cache) if marked is None else marked

    def back_to_root(self, marked: Mark, steps: int) -> None:
        """Take back the last `steps` steps of plain decoding, before which the target's cache was `marked`.
        The first of them decided the token after the last one of `token_ids`: that is to be decided again, by
        a row alone."""
        self.length -= 1
        self.root, self.near_tie = self.token_ids[-1], True
        self.pair.target.rewind(self.target_cache, marked)
        for _ in range(steps if self.drafter_cache else 0):
            if self.features:  # a step's features are a piece of one row
                self.features.pop()
            else:
                for layer_cache in self.drafter_cache:
                    layer_cache.offset -= 1

    @property
    def drafted_length(self) -> int:
        """Tokens whose features are in the drafter's cache."""
        return self.drafter_cache[0].offset if self.drafter_cache else 0

    def settle(self) -> None:
        """Bring both caches up to everything emitted, so that a later call can continue them."""
        target = self.pair.target
        if self.root is not None:
            _, features = target.forward(mx.array([[self.root]]), self.target_cache, self.held.gap)
            self.append_features(features)
            self.root, self.length = None, self.length + 1
        self.extend_drafter()
        mx.eval([c.state for c in (*self.target_cache, *self.drafter_cache)])

    def extend_drafter(self, at: Positions | None = None) -> None:
        """Give the drafter's cache what it has not seen, without drafting; at: its positions, if not consecutive."""
        if self.pair.drafter is not None and self.features:
            at = self.held.drafter_gap if at is None else at
            self.pair.drafter.extend(self.take_features(), self.drafter_cache, at)

    def append_features(self, features: mx.array | None) -> None:
        """Queue committed tokens' features for the drafter."""
        if self.drafter_cache and features is not None:
            self.features.append(features)
