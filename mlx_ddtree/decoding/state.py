"""What survives from one round to the next, and the guarantee that it is never half-changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
from mlx_lm.models.cache import RotatingKVCache

from mlx_ddtree.decoding.context import Coverage, PromptCache
from mlx_ddtree.decoding.small_caches import KvQuantization
from mlx_ddtree.grammar.walk import GrammarWalk
from mlx_ddtree.kernels.rope import Positions
from mlx_ddtree.pair import Pair
from mlx_ddtree.target.marks import Mark


class DecodeState:
    """One sequence that is being decoded, on a prompt cache that it owns for as long as it goes on.

    caches: the layers of target and drafter, the text's tokens (root included) and what was left out of it.
    length: tokens in the target's caches.
    root: the bonus token: decided, emitted, not in the caches; None once everything emitted is.
    features: pieces (1, m, taps * D), in order, of the committed tokens that the drafter has not seen;
        they wait here because extending the drafter's cache by many tokens costs as much as by one.
    exact: tokens in the target's caches that were computed as plain decoding would: the prompt, and what
        followed it one at a time.
    exact_mark: where the target's caches stood then.
    proven: a mark of the target's caches and the tokens that they held then, all of which the host knows to have been
        computed; None: nothing is known.
    near_tie: whether what follows the root is to be decided by a row of its own.
    reads_at_most: context tokens that a layer of the target reads (icecache/); None: all.
    quantization: what happens to the target's caches once they hold enough tokens; None: nothing.
    walk: the answer's way through its grammar, which catches up with the text whenever it is asked; None: no grammar.
    """

    def __init__(self, pair: Pair, caches: PromptCache, root: int | None = None) -> None:
        self.pair = pair
        self.caches = caches
        self.length = caches.length
        self.root = root
        self.features: list[mx.array] = []
        self.exact = 0
        self.exact_mark: Mark = []
        self.proven: tuple[Mark, int] | None = None
        self.near_tie = False
        self.reads_at_most: int | None = None
        self.quantization: KvQuantization | None = None
        self.walk: GrammarWalk | None = None

    @property
    def token_ids(self) -> list[int]:
        """The whole text as far as it is known, root included: what logits processors and lookups see."""
        return self.caches.token_ids

    @property
    def coverage(self) -> Coverage:
        """What the caches hold of the text."""
        return self.caches.coverage

    @coverage.setter
    def coverage(self, coverage: Coverage) -> None:
        self.caches.coverage = coverage

    @property
    def position(self) -> int:
        """Position of the token that comes next into the target's caches."""
        return self.length + self.coverage.gap

    @property
    def source(self) -> int:
        """Tokens that the target's caches stand for."""
        return self.coverage.source + self.length - self.coverage.rows

    @property
    def context(self) -> int:
        """Context tokens that a round's cost depends on."""
        return self.length if self.reads_at_most is None else min(self.length, self.reads_at_most)

    @property
    def quantization_due(self) -> bool:
        """Whether the target's caches are to be quantised before anything else is added."""
        return self.quantization is not None and self.length >= self.quantization.start

    @property
    def room(self) -> int | None:
        """Rows that a round may add before the target's caches are quantised; None: any number."""
        return None if self.quantization is None else max(self.quantization.start - self.length, 1)

    @property
    def drafted_length(self) -> int:
        """Tokens whose features are in the drafter's caches."""
        drafter_cache = self.caches.drafter
        return drafter_cache[0].offset if drafter_cache else 0

    @contextmanager
    def all_or_nothing(self) -> Iterator[Mark]:
        """Undo every change of the block if it raises, Ctrl-C included.  Gives the mark of the target's caches."""
        features = list(self.features)
        root = self.root
        length = self.length
        coverage = self.coverage
        tokens = len(self.token_ids)
        drafted = self.drafted_length
        marked = self.pair.target.mark(self.caches.target)
        try:
            yield marked
        except BaseException:
            for layer_cache in self.caches.drafter:
                layer_cache.offset = drafted
            self.pair.target.rewind(self.caches.target, marked)
            del self.token_ids[tokens:]
            self.features = features
            self.root = root
            self.length = length
            self.coverage = coverage
            raise

    def mark_exact(self, marked: Mark | None = None) -> None:
        """All `length` tokens were computed as plain decoding would; marked: the caches then, if not now."""
        self.exact = self.length
        self.exact_mark = self.pair.target.mark(self.caches.target) if marked is None else marked

    def standing(self, marked: Mark) -> tuple[Mark, int]:
        """What is proven once the host has read an answer that was computed from the caches as they were `marked`;
        since then they have got nothing but its rows.

        Of rings an older mark: MLX would copy a ring that cannot be written to in place.
        """
        turning = any(isinstance(layer_cache, RotatingKVCache) for layer_cache in self.caches.target)
        return (self.exact_mark, self.exact) if turning else (marked, self.length)

    def back_to_root(self, marked: Mark, steps: int) -> None:
        """Take back the last `steps` steps of plain decoding, before which the target's caches were `marked`.

        The first of them decided the token after the last one of `token_ids`: a row of its own decides that again.
        """
        self.length -= 1
        self.root = self.token_ids[-1]
        self.near_tie = True
        self.pair.target.rewind(self.caches.target, marked)
        if not self.caches.drafter:
            return
        for _ in range(steps):
            if self.features:  # a step's features are a piece of one row
                self.features.pop()
                continue
            for layer_cache in self.caches.drafter:
                layer_cache.offset -= 1

    def quantize(self) -> None:
        """Quantise the target's caches; from then on what is added to them is quantised row by row."""
        if self.quantization is not None:
            self.quantization.apply(self.caches)
            self.quantization = None
            self.proven = None

    def append_features(self, features: mx.array | None) -> None:
        """Queue committed tokens' features (1, m, taps * D) for the drafter."""
        if self.caches.drafter and features is not None:
            self.features.append(features)

    def take_features(self) -> mx.array:
        """The features (1, m, taps * D), m >= 0, that the drafter's caches are about to receive."""
        pieces = self.features
        self.features = []
        if pieces:
            return mx.concatenate(pieces, axis=1)
        drafter = self.pair.drafter
        assert drafter is not None
        return drafter.no_features()

    def extend_drafter(self, at: Positions | None = None) -> None:
        """Give the drafter's caches what they have not seen, without drafting; at: positions, if not consecutive."""
        if self.pair.drafter is not None and self.features:
            positions = self.coverage.drafter_gap if at is None else at
            self.pair.drafter.extend(self.take_features(), self.caches.drafter, positions)

    def settle(self) -> None:
        """Bring both caches up to everything emitted, so that a later call can continue them."""
        target = self.pair.target
        if self.root is not None:
            _, features = target.forward(mx.array([[self.root]]), self.caches.target, self.coverage.gap)
            self.append_features(features)
            self.root = None
            self.length += 1
        self.extend_drafter()
        mx.eval([layer_cache.state for layer_cache in self.caches])
